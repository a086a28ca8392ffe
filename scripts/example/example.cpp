// The smallest program that uses fla: y = rms_norm(x) on the current device, without a framework.
#include <cuda_runtime.h>

#include <cstdio>
#include <vector>

#include "fla/norm.h"

int main() {
  int devices = 0;
  if (cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0) {
    // Without a GPU the call still says what is wrong with its arguments, before it launches anything.
    const fla::Status s = fla::run(fla::RmsNormForward{}, {}, nullptr);
    std::printf("no GPU; an empty call is refused: %s (%s)\n", s.text, fla::name_of(s.code));
    return s.code == fla::StatusCode::null_pointer ? 0 : 1;
  }
  constexpr int64_t kRows = 4, kColumns = 1024;
  std::vector<float> host(kRows * kColumns, 2.0f);
  void *x = nullptr, *y = nullptr;
  cudaMalloc(&x, host.size() * sizeof(float));
  cudaMalloc(&y, host.size() * sizeof(float));
  cudaMemcpy(x, host.data(), host.size() * sizeof(float), cudaMemcpyHostToDevice);

  fla::RmsNormForward norm{.x = fla::dense(x, fla::DType::f32, {kRows, kColumns}),
                           .y = fla::dense(y, fla::DType::f32, {kRows, kColumns})};
  const fla::Status s = fla::run(norm, {}, nullptr);
  cudaMemcpy(host.data(), y, host.size() * sizeof(float), cudaMemcpyDeviceToHost);
  std::printf("%s: y[0] = %g, expected 1\n", s.ok() ? "ok" : s.text, host[0]);
  return s.ok() && host[0] > 0.999f && host[0] < 1.001f ? 0 : 1;
}
