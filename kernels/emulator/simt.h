// CUDA's names for kernels that run on the CPU: what common/gpu.h, warp.cuh and ptx.cuh stand on when nvcc
// does not compile them. Every thread of a block is a fiber that stops at collectives; a broken rule of a
// collective ends the launch with a KernelFault that names the line.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "emulator/access_watch.h"
#include "fla/status.h"

struct uint3 {
  unsigned x, y, z;
};
struct dim3 {
  unsigned x, y, z;
  constexpr dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};
struct alignas(8) uint2 {
  unsigned x, y;
};
struct alignas(16) uint4 {
  unsigned x, y, z, w;
};
struct alignas(8) float2 {
  float x, y;
};
struct alignas(16) float4 {
  float x, y, z, w;
};
inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }
inline float2 make_float2(float x, float y) { return {x, y}; }
inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }

// Set by the scheduler whenever it resumes a thread: plain values of CUDA's types, so that `auto`, templates
// and overloads see what they see under nvcc.
extern constinit thread_local uint3 threadIdx, blockIdx;
extern constinit thread_local dim3 blockDim, gridDim;

namespace fla::detail::emulator {

extern constinit thread_local void* shared_arena;

// std::source_location, which clang 14 lacks.
struct CallSite {
  const char* file = "";
  int line = 0;
  static constexpr CallSite current(const char* file = __builtin_FILE(), int line = __builtin_LINE()) {
    return {file, line};
  }
};

struct Shape {
  int64_t grid = 1;
  int grid_y = 1, block = 1, block_y = 1;
  size_t shared_bytes = 0;
  int cluster = 1;
};

// The body of one thread, called once per thread of the launch.
struct ThreadBody {
  void (*call)(const void*);
  const void* object;
};
void run_launch(const Shape& shape, const char* launcher, ThreadBody body);

// Runs body() for every thread of the launch and returns when all have ended. Throws KernelFault, which names
// kKernel.
template <auto kKernel, class Body>
Status launch(const Shape& shape, const Body& body) {
  run_launch(shape, __PRETTY_FUNCTION__,
             {[](const void* object) { (*static_cast<const Body*>(object))(); }, &body});
  return {};
}

void block_barrier(CallSite site = CallSite::current());
void warpgroup_barrier(int groups, CallSite site);  // by `groups` times four warps, from a multiple of that on
void warp_barrier(unsigned mask = 0xffffffffu, CallSite site = CallSite::current());
// Clusters: neighbouring blocks that run together and write each other's shared memory.
void cluster_barrier(CallSite site = CallSite::current());
int cluster_rank();
void cluster_store(float* own, int rank, float value, CallSite site = CallSite::current());
unsigned ballot(bool predicate, unsigned mask = 0xffffffffu, CallSite site = CallSite::current());

// Gives each lane of the mask what lane `source` of the warp brought.
uint64_t exchange(uint64_t value, int source, unsigned mask, CallSite site);
int current_lane();

template <class T>
T shuffle(T value, int lane, unsigned mask = 0xffffffffu, CallSite site = CallSite::current()) {
  static_assert(std::is_trivially_copyable_v<T> && sizeof(T) <= 8);
  uint64_t bits = 0;
  std::memcpy(&bits, &value, sizeof value);
  bits = exchange(bits, lane, mask, site);
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

template <class T>
T shuffle_xor(T value, int lane_mask, unsigned mask = 0xffffffffu, CallSite site = CallSite::current()) {
  return shuffle(value, current_lane() ^ lane_mask, mask, site);
}

// Asynchronous copies. A copy is only recorded when it is issued, and its destination poisoned; the bytes
// move when somebody waits for the phase. So a missing wait, and a stage refilled while it is still read,
// show as NaN.
struct alignas(8) TransactionBarrier {
  uint64_t word;
};
void barrier_init(TransactionBarrier* barrier, CallSite site = CallSite::current());
void barrier_expect(TransactionBarrier* barrier, uint32_t bytes, CallSite site = CallSite::current());
void bulk_load(void* shared, const void* global, uint32_t bytes, TransactionBarrier* barrier,
               CallSite site = CallSite::current());
void bulk_commit(TransactionBarrier* barrier, CallSite site = CallSite::current());
void barrier_wait(TransactionBarrier* barrier, uint32_t parity, CallSite site = CallSite::current());

// Copies of one thread, in groups. They too move when they are waited for, and not before.
void async_copy(void* shared, const void* global, uint32_t bytes, CallSite site = CallSite::current());
void async_commit(CallSite site = CallSite::current());
void async_wait(int pending, CallSite site = CallSite::current());

// Bulk stores of one thread. The bytes move when they are waited for: a slot overwritten before shows in what was stored.
void bulk_store(void* global, const void* shared, uint32_t bytes, CallSite site = CallSite::current());
void bulk_stores_wait(int pending, CallSite site = CallSite::current());

inline void atomic_add(int64_t* address, int64_t value) {
  __atomic_fetch_add(address, value, __ATOMIC_RELAXED);
}
inline void atomic_min(int64_t* address, int64_t value) {
  int64_t seen = __atomic_load_n(address, __ATOMIC_RELAXED);
  while (value < seen &&
         !__atomic_compare_exchange_n(address, &seen, value, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
  }
}

[[noreturn]] void report_misaligned(const void* address, int bytes);
inline void check_aligned(const void* address, int bytes) {
  if (reinterpret_cast<uintptr_t>(address) % static_cast<uintptr_t>(bytes) != 0) [[unlikely]]
    report_misaligned(address, bytes);
}

}  // namespace fla::detail::emulator

namespace fla::detail {

template <class T>
T* shared_memory() {
  static_assert(alignof(T) <= 128);
  return static_cast<T*>(emulator::shared_arena);
}

}  // namespace fla::detail
