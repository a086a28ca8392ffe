// Launching a kernel: the only place where the runtime is called on the hot path.
//
//   return launch<&my_kernel<T, 4>>({.grid = rows, .block = 256, .shared_bytes = bytes, .stream = stream}, args);
//
// The kernel is a template argument, so that what must be done once per kernel and device (raising the shared
// memory limit) is remembered without a lookup.
#pragma once

#include <atomic>
#include <cstdint>
#include <cstdio>
#include <type_traits>

#include "common/gpu.h"
#include "fla/status.h"
#include "fla/tensor.h"

namespace fla::detail {

struct Launch {
  int64_t grid = 1;  // blocks along x; data-dependent counts go here and nowhere else
  int grid_y = 1;    // small and fixed by the operator
  int block = 128;   // threads along x
  int block_y = 1;
  int cluster = 1;   // neighbouring blocks that run together; divides the grid, at most 8; sm_90
  size_t shared_bytes = 0;
  Stream stream = nullptr;
  bool dependent = false;  // programmatic dependent launch: the kernel itself calls wait_for_predecessor()
};

inline constexpr size_t kSharedLimit = 232448;  // opt-in limit per block on sm_90 (227 KB)

inline Status launch_shape_error(const char* what, int64_t value) {
  Status s;
  s.code = StatusCode::unsupported_shape;
  std::snprintf(s.text, sizeof s.text, "launch: %s %lld is outside what the device can run", what,
                static_cast<long long>(value));
  return s;
}

#if defined(FLA_GPU)

inline Status cuda_status(cudaError_t error, const char* doing) {
  Status s;
  if (error == cudaSuccess) return s;
  s.code = StatusCode::cuda_error;
  s.cuda_code = static_cast<int32_t>(error);
  std::snprintf(s.text, sizeof s.text, "%s: %s", doing, cudaGetErrorString(error));
  return s;
}

// Raises the kernel's dynamic shared memory limit, once per kernel and device.
template <auto kKernel>
Status allow_shared_memory(size_t bytes) {
  static std::atomic<uint64_t> raised{0};  // a bit per device; 64 devices and more fall back to every call
  if (bytes <= 48 * 1024) return {};
  int device = 0;
  if (Status s = cuda_status(cudaGetDevice(&device), "launch: current device"); !s.ok()) return s;
  const uint64_t bit = device < 64 ? uint64_t{1} << device : 0;
  if (raised.load(std::memory_order_relaxed) & bit) return {};
  Status s = cuda_status(cudaFuncSetAttribute(reinterpret_cast<const void*>(kKernel),
                                              cudaFuncAttributeMaxDynamicSharedMemorySize,
                                              static_cast<int>(kSharedLimit)),
                         "launch: shared memory limit");
  if (s.ok()) raised.fetch_or(bit, std::memory_order_relaxed);
  return s;
}

template <auto kKernel, class... A>
Status launch(const Launch& shape, const A&... args) {
  if (shape.grid < 1 || shape.grid > 0x7fffffff) return launch_shape_error("grid", shape.grid);
  if (shape.shared_bytes > kSharedLimit)
    return launch_shape_error("shared memory", static_cast<int64_t>(shape.shared_bytes));
  if (Status s = allow_shared_memory<kKernel>(shape.shared_bytes); !s.ok()) return s;
  cudaLaunchConfig_t config = {};
  config.gridDim = dim3(static_cast<unsigned>(shape.grid), static_cast<unsigned>(shape.grid_y));
  config.blockDim = dim3(static_cast<unsigned>(shape.block), static_cast<unsigned>(shape.block_y));
  config.dynamicSmemBytes = shape.shared_bytes;
  config.stream = shape.stream;
  cudaLaunchAttribute attributes[2] = {};
  config.attrs = attributes;
  if (shape.dependent) {
    cudaLaunchAttribute& attribute = attributes[config.numAttrs++];
    attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
    attribute.val.programmaticStreamSerializationAllowed = 1;
  }
  if (shape.cluster > 1) {
    cudaLaunchAttribute& attribute = attributes[config.numAttrs++];
    attribute.id = cudaLaunchAttributeClusterDimension;
    attribute.val.clusterDim.x = static_cast<unsigned>(shape.cluster);
    attribute.val.clusterDim.y = attribute.val.clusterDim.z = 1;
  }
  return cuda_status(cudaLaunchKernelEx(&config, kKernel, args...), "launch");
}

#else

template <auto kKernel, class... A>
Status launch(const Launch& shape, const A&... args) {
  static_assert((std::is_trivially_copyable_v<A> && ...), "kernel arguments travel as bytes");
  if (shape.grid < 1 || shape.grid > 0x7fffffff) return launch_shape_error("grid", shape.grid);
  if (shape.shared_bytes > kSharedLimit)
    return launch_shape_error("shared memory", static_cast<int64_t>(shape.shared_bytes));
  return emulator::launch<kKernel>({shape.grid, shape.grid_y, shape.block, shape.block_y, shape.shared_bytes, shape.cluster},
                                   [&] { kKernel(args...); });
}

#endif

}  // namespace fla::detail
