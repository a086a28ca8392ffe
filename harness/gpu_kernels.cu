#include "harness/gpu_kernels.h"

#include <cuda_runtime.h>

namespace fla::harness::gpu {
namespace {

constexpr int kThreads = 256;

__global__ void gate(const volatile int* open) {
  unsigned long long start, now;
  asm volatile("mov.u64 %0, %globaltimer;" : "=l"(start));
  do {
    asm volatile("mov.u64 %0, %globaltimer;" : "=l"(now));
  } while (*open == 0 && now - start < 2000000000ull);
}

__global__ void hog(uint4* memory, size_t vectors, int passes) {
  const size_t step = static_cast<size_t>(gridDim.x) * blockDim.x;
  for (int pass = 0; pass < passes; ++pass)
    for (size_t i = static_cast<size_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < vectors; i += step) {
      uint4 v = memory[i];
      v.x += 1;
      memory[i] = v;
    }
}

__global__ void nothing() {}

template <int R, int W>
__global__ void __launch_bounds__(kThreads) copy(const uint4* from, uint4* to, size_t vectors) {
  const size_t i = static_cast<size_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (i >= vectors) return;
  uint4 read[R > 0 ? R : 1] = {};
#pragma unroll
  for (int r = 0; r < R; ++r) read[r] = from[r * vectors + i];
  uint4 v = read[0];
#pragma unroll
  for (int r = 1; r < R; ++r) {
    v.x ^= read[r].x;
    v.y ^= read[r].y;
    v.z ^= read[r].z;
    v.w ^= read[r].w;
  }
  if (R == 0) v = make_uint4(static_cast<unsigned>(i), 1, 2, 3);
  if (W == 0) {
    // Never true on the data used; without a use the loads would be removed.
    if (v.x == 0x9e3779b9u && v.y == 0x7f4a7c15u && v.z == 0xbf58476du) to[0] = v;
  }
#pragma unroll
  for (int w = 0; w < W; ++w) {
    v.x += static_cast<unsigned>(w);
    to[w * vectors + i] = v;
  }
}

int last_error() { return static_cast<int>(cudaGetLastError()); }

template <int R, int W>
int launch_mix(const void* from, void* to, size_t vectors, Stream stream) {
  copy<R, W><<<static_cast<unsigned>((vectors + kThreads - 1) / kThreads), kThreads, 0, stream>>>(
      static_cast<const uint4*>(from), static_cast<uint4*>(to), vectors);
  return last_error();
}

template <int R>
int launch_writes(int writes, const void* from, void* to, size_t vectors, Stream stream) {
  switch (writes) {
    case 0: return launch_mix<R, 0>(from, to, vectors, stream);
    case 1: return launch_mix<R, 1>(from, to, vectors, stream);
    case 2: return launch_mix<R, 2>(from, to, vectors, stream);
    case 3: return launch_mix<R, 3>(from, to, vectors, stream);
    default: return launch_mix<R, 4>(from, to, vectors, stream);
  }
}

}  // namespace

int launch_gate(const volatile int* open, Stream stream) {
  gate<<<1, 1, 0, stream>>>(open);
  return last_error();
}

int launch_hog(void* memory, size_t bytes, int passes, Stream stream) {
  hog<<<66, 256, 0, stream>>>(static_cast<uint4*>(memory), bytes / 16, passes);
  return last_error();
}

int launch_copy(int reads, int writes, const void* from, void* to, size_t stream_bytes, Stream stream) {
  const size_t vectors = stream_bytes / 16;
  if (vectors == 0) return launch_nothing(stream);
  switch (reads) {
    case 0: return launch_writes<0>(writes > 0 ? writes : 1, from, to, vectors, stream);
    case 1: return launch_writes<1>(writes, from, to, vectors, stream);
    case 2: return launch_writes<2>(writes, from, to, vectors, stream);
    case 3: return launch_writes<3>(writes, from, to, vectors, stream);
    default: return launch_writes<4>(writes, from, to, vectors, stream);
  }
}

int launch_nothing(Stream stream) {
  nothing<<<1, 32, 0, stream>>>();
  return last_error();
}

}  // namespace fla::harness::gpu
