// The one header through which kernels see the machine: CUDA under nvcc, the SIMT emulator elsewhere. A kernel
// written against this file and the rest of kernels/common runs unchanged on both. Rules that make it so:
//
//   launch through fla::launch (launch.h); dynamic shared memory through shared_memory<T>() only, no __shared__
//   statics; warp operations are the *_sync functions of warp.cuh with explicit masks; no thread returns before
//   a collective that names it; storage types f16/bf16 of vector.cuh, arithmetic in float; memory through
//   load/store of vector.cuh; math through fla::math; PTX only in ptx.cuh; offsets int64_t, 32-bit only for a
//   column within a row; no printf, malloc, recursion, globals, float atomics.
#pragma once

#include <cstdint>

#if defined(__CUDACC__)

#include <cuda_runtime.h>

#define FLA_GPU 1
#define FLA_KERNEL __global__
#define FLA_DEVICE __device__ __forceinline__
#define FLA_HOST_DEVICE __host__ __device__ __forceinline__
#define FLA_BOUNDS(threads, blocks_per_sm) __launch_bounds__(threads, blocks_per_sm)
#define FLA_PARAMETERS const __grid_constant__
#define FLA_UNROLL _Pragma("unroll")
#define FLA_PRAGMA(text) _Pragma(#text)
#define FLA_UNROLL_BY(n) FLA_PRAGMA(unroll n)
#define FLA_NO_UNROLL _Pragma("unroll 1")

namespace fla::detail {
// The block's dynamic shared memory. Aligned as panels want it (common/warpgroup.cuh).
template <class T>
FLA_DEVICE T* shared_memory() {
  extern __shared__ __align__(1024) unsigned char fla_dynamic_shared_memory[];
  return reinterpret_cast<T*>(fla_dynamic_shared_memory);
}
}  // namespace fla::detail

#else

#define FLA_KERNEL
#define FLA_DEVICE inline
#define FLA_HOST_DEVICE inline
#define FLA_BOUNDS(threads, blocks_per_sm)
#define FLA_PARAMETERS const
#define FLA_UNROLL
#define FLA_UNROLL_BY(n)
#define FLA_NO_UNROLL

// threadIdx, blockIdx, blockDim, gridDim, dim3, uint2, uint4, __syncthreads, fla::detail::shared_memory, ...
#include "emulator/simt.h"

#endif
