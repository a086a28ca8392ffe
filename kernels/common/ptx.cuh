// Named wrappers of PTX, each with an emulator body of the same contract (emulator/simt.h).
//
// Bulk copies (sm_90): one thread arms a transaction barrier with the bytes to come and issues copies from global
// to shared memory; consumers wait for the barrier's phase by parity. Addresses and sizes are multiples of 16.
// On architectures before sm_90 the copy is done by the issuing thread itself, in place, with the same contract.
#pragma once

#include "common/gpu.h"

namespace fla::detail {

#if defined(FLA_GPU)

struct alignas(8) TransactionBarrier {
  uint64_t word;
};

FLA_DEVICE uint32_t shared_address(const void* p) { return static_cast<uint32_t>(__cvta_generic_to_shared(p)); }

// By one thread, before a block_barrier() that precedes every other use.
FLA_DEVICE void barrier_init(TransactionBarrier* barrier) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], 1;" ::"r"(shared_address(barrier)));
#if __CUDA_ARCH__ >= 900
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
#endif
}

// By the issuing thread, once per phase, before its bulk_load calls: the phase ends when `bytes` have arrived.
FLA_DEVICE void barrier_expect(TransactionBarrier* barrier, uint32_t bytes) {
#if __CUDA_ARCH__ >= 900
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(shared_address(barrier)), "r"(bytes)
               : "memory");
#endif
}

FLA_DEVICE void bulk_load(void* shared, const void* global, uint32_t bytes, TransactionBarrier* barrier) {
#if __CUDA_ARCH__ >= 900
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(
          shared_address(shared)),
      "l"(global), "r"(bytes), "r"(shared_address(barrier))
      : "memory");
#else
  for (uint32_t i = 0; i < bytes / 16; ++i)
    static_cast<uint4*>(shared)[i] = static_cast<const uint4*>(global)[i];
#endif
}

// By the issuing thread, after the phase's bulk_load calls. (Only the portable body has work to do here.)
FLA_DEVICE void bulk_commit(TransactionBarrier* barrier) {
#if __CUDA_ARCH__ < 900
  asm volatile("{ .reg .b64 state; mbarrier.arrive.shared::cta.b64 state, [%0]; }" ::"r"(shared_address(barrier))
               : "memory");
#endif
}

// By every consumer: returns once the phase of this parity (0 for the first, then alternating) has ended.
FLA_DEVICE void barrier_wait(TransactionBarrier* barrier, uint32_t parity) {
  uint32_t done = 0;
  while (!done) {
#if __CUDA_ARCH__ >= 900
    asm volatile(
        "{ .reg .pred p; mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2; selp.u32 %0, 1, 0, p; }"
        : "=r"(done)
        : "r"(shared_address(barrier)), "r"(parity)
        : "memory");
#else
    asm volatile(
        "{ .reg .pred p; mbarrier.test_wait.parity.shared::cta.b64 p, [%1], %2; selp.u32 %0, 1, 0, p; }"
        : "=r"(done)
        : "r"(shared_address(barrier)), "r"(parity)
        : "memory");
#endif
  }
}

// Asynchronous copies of one thread (sm_80): async_copy of 8 or 16 bytes, aligned to their size, from global to shared
// memory; async_commit ends a group of them; async_wait<n> returns once all groups of this thread but the latest n have
// arrived, for this thread to read. Others need a barrier after that.
template <int kBytes>
FLA_DEVICE void async_copy(void* shared, const void* global) {
  static_assert(kBytes == 8 || kBytes == 16);
  if constexpr (kBytes == 16)
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(shared_address(shared)), "l"(global) : "memory");
  else
    asm volatile("cp.async.ca.shared.global [%0], [%1], 8;" ::"r"(shared_address(shared)), "l"(global) : "memory");
}
// The same of 16 bytes; zeros where there is nothing to copy, and then `global` is not read.
FLA_DEVICE void async_copy_or_zeros(void* shared, const void* global, bool there) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(shared)), "l"(global), "r"(there ? 16 : 0)
               : "memory");
}
FLA_DEVICE void async_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int kPending>
FLA_DEVICE void async_wait() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kPending) : "memory");
}

// Bulk stores of one thread: from shared to global memory, both aligned to 16 bytes as is the size. What this thread's warp wrote
// to shared memory is seen once each lane has called publish_to_async() and a barrier followed; it may be overwritten
// once bulk_stores_wait<n>, which leaves the latest n copies under way, and another barrier have passed. Each copy is a group.
FLA_DEVICE void publish_to_async() {
#if __CUDA_ARCH__ >= 900
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
#endif
}
FLA_DEVICE void bulk_store(void* global, const void* shared, uint32_t bytes) {
#if __CUDA_ARCH__ >= 900
  asm volatile(
      "cp.async.bulk.global.shared::cta.bulk_group [%0], [%1], %2;\ncp.async.bulk.commit_group;" ::"l"(global),
      "r"(shared_address(shared)), "r"(bytes)
      : "memory");
#else
  for (uint32_t i = 0; i < bytes / 16; ++i)
    static_cast<uint4*>(global)[i] = static_cast<const uint4*>(shared)[i];
#endif
}
template <int kPending>
FLA_DEVICE void bulk_stores_wait() {
#if __CUDA_ARCH__ >= 900
  asm volatile("cp.async.bulk.wait_group.read %0;" ::"n"(kPending) : "memory");
#endif
}

// Programmatic dependent launch: before the first access to memory that the previous kernel may touch.
FLA_DEVICE void wait_for_predecessor() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.wait;" ::: "memory");
#endif
}
// The next kernel in the stream may start its prologue from here on.
FLA_DEVICE void release_dependents() {
#if __CUDA_ARCH__ >= 900
  asm volatile("griddepcontrol.launch_dependents;");
#endif
}

// Clusters (sm_90): neighbouring blocks that run together (Launch::cluster) and reach each other's shared memory. On
// architectures before that nothing may launch one.
FLA_DEVICE int cluster_rank() {
  uint32_t rank = 0;
#if __CUDA_ARCH__ >= 900
  asm("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
#endif
  return static_cast<int>(rank);
}
// Every thread of every block; what was stored before it, in any block's shared memory, is seen after it.
FLA_DEVICE void cluster_barrier() {
#if __CUDA_ARCH__ >= 900
  asm volatile("barrier.cluster.arrive.release;\nbarrier.cluster.wait.acquire;" ::: "memory");
#endif
}
// Stores to where `own` lies, in the shared memory of the block of that rank.
FLA_DEVICE void cluster_store(float* own, int rank, float value) {
#if __CUDA_ARCH__ >= 900
  asm volatile("{ .reg .b32 there; mapa.shared::cluster.u32 there, %0, %1; st.shared::cluster.f32 [there], %2; }" ::"r"(
                   shared_address(own)),
               "r"(rank), "f"(value)
               : "memory");
#endif
}

FLA_DEVICE void atomic_add(int64_t* address, int64_t value) {
  atomicAdd(reinterpret_cast<unsigned long long*>(address), static_cast<unsigned long long>(value));
}
FLA_DEVICE void atomic_min(int64_t* address, int64_t value) {
  atomicMin(reinterpret_cast<long long*>(address), static_cast<long long>(value));
}

#else

template <int kBytes>
FLA_DEVICE void async_copy(void* shared, const void* global) {
  emulator::async_copy(shared, global, kBytes);
}
FLA_DEVICE void async_copy_or_zeros(void* shared, const void* global, bool there) {
  alignas(16) static constexpr unsigned char zeros[16] = {};
  emulator::async_copy(shared, there ? global : zeros, 16);
}
template <int kPending>
FLA_DEVICE void async_wait() {
  emulator::async_wait(kPending);
}
FLA_DEVICE void publish_to_async() {}
template <int kPending>
FLA_DEVICE void bulk_stores_wait() {
  emulator::bulk_stores_wait(kPending);
}
using emulator::TransactionBarrier;
using emulator::async_commit;
using emulator::atomic_add;
using emulator::atomic_min;
using emulator::barrier_expect;
using emulator::barrier_init;
using emulator::barrier_wait;
using emulator::bulk_commit;
using emulator::bulk_load;
using emulator::bulk_store;
using emulator::cluster_barrier;
using emulator::cluster_rank;
using emulator::cluster_store;
FLA_DEVICE void wait_for_predecessor() {}
FLA_DEVICE void release_dependents() {}

#endif

}  // namespace fla::detail
