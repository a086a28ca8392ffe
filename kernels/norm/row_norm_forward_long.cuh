// Row norms, forward, rows of more than 32 KB: persistent blocks, two to a multiprocessor where the row lets them. The first
// vectors of a row are in registers, the rest in shared memory, each thread's in slots of its own, so that no barrier parts
// writing from fetching: as soon as a vector is written, the next row's is on its way to its place. Blocks that read a whole
// row and then wrote it took 327 us for an rms norm of 4096 x 65536 bf16 on an H200; these take 300, a copy 252.
#pragma once

#include "common/launch.h"
#include "common/ptx.cuh"
#include "common/row_reduce.cuh"
#include "norm/forward_row.cuh"
#include "norm/row_plan.h"

namespace fla::detail {

struct BlockShared {
  BlockSlots<1> slots[2];
};

template <class W, Form kForm>
inline constexpr int kLongResident = kHasGate<kForm> || sizeof(W) == 4 ? 1 : 2;

template <class T, class W, Form kForm>
FLA_KERNEL void FLA_BOUNDS(kLongRowThreads, (kLongResident<W, kForm>)) row_norm_forward_long(FLA_PARAMETERS ForwardArgs a) {
  constexpr int kWidth = 16 / sizeof(T), kThreads = kLongRowThreads, kVectors = kLongRowVectors, kKept = kThreads * kVectors;
  wait_for_predecessor();
  const int thread = static_cast<int>(threadIdx.x);
  auto* ring = shared_memory<unsigned char>();
  auto* shared = reinterpret_cast<BlockShared*>(ring + static_cast<int64_t>(a.shared_vectors) * 16);
  const auto place_of = [&](int vector) { return reinterpret_cast<T*>(ring + vector * 16); };
  // Visits this thread's vectors in shared memory.
  const auto each_shared = [&](auto visit) {
    FLA_UNROLL_BY(kHasMean<kForm> ? 2 : 4)
    for (int v = thread; v < a.shared_vectors; v += kThreads) visit(v);
  };
  const auto sum_over_shared = [&](float sum, auto add) {
    each_shared([&](int v) {
      float u[kWidth];
      load_floats(place_of(v), u);
      add(u, sum);
    });
    return sum;
  };

  RowInRegisters<T, NoSecond, kVectors> held;
  const auto row_of = [&](int64_t row) { return static_cast<const T*>(a.x.data.data) + row_at<kForm>(a, row).in(a.x); };
  const auto fetch_shared = [&](const T* x, int v) { async_copy<16>(place_of(v), x + (kKept + v) * kWidth); };
  const T* first = row_of(blockIdx.x);
  FLA_UNROLL
  for (int i = 0; i < kVectors; ++i) held.held[i] = load<T, kWidth>(first + (thread + i * kThreads) * kWidth);
  each_shared([&](int v) { fetch_shared(first, v); });
  async_commit();

  int turn = 0;
  FLA_NO_UNROLL
  for (int64_t number = blockIdx.x; number < a.grid.rows; number += gridDim.x) {
    const RowAt row = row_at<kForm>(a, number);
    HeldGate<T, kVectors, kHasGate<kForm>> gate;
    gate.read(a, row, thread, kThreads, kKept);
    async_wait<0>();
    float sum = sum_over_shared(kHasMean<kForm> ? held.sum() : held.sum_of_squares(), [](const float (&u)[kWidth], float& to) {
      FLA_UNROLL
      for (int e = 0; e < kWidth; ++e) to = kHasMean<kForm> ? to + u[e] : fmaf(u[e], u[e], to);
    });
    sum = block_sum(sum, shared->slots[turn]);
    turn ^= 1;
    RowStatistic s;
    if constexpr (kHasMean<kForm>) {
      s.mean = sum * a.share;
      sum = sum_over_shared(held.sum_of_deviations(s.mean, thread, kThreads, kKept),
                            [&](const float (&u)[kWidth], float& to) { add_deviations(u, s.mean, to); });
      sum = block_sum(sum, shared->slots[turn]);
      turn ^= 1;
    }
    s.rstd = math::rsqrt(fmaf(sum, a.share, a.eps));
    if (thread == 0) store_statistic<kHasMean<kForm>>(a, row, s);

    const bool more = number + gridDim.x < a.grid.rows;
    const T* next = row_of(more ? number + gridDim.x : number);
    const auto write = [&](float (&u)[kWidth], const float (&g)[kWidth], int vector) {
      const auto parameters = parameters_of_vector<W, kWidth, kForm>(a, row.g, vector);
      write_vector<T, std::conditional_t<kIsPlain<kForm>, T, void>, kForm, false>(a, u, parameters, g, kHasGate<kForm>, s, row,
                                                                                 vector * kWidth);
    };
    FLA_UNROLL
    for (int i = 0; i < kVectors; ++i) {
      float u[kWidth], g[kWidth];
      unpack(held.held[i], u);
      if constexpr (kHasGate<kForm>) unpack(gate.held[i], g);
      const int vector = thread + i * kThreads;
      if (more) held.held[i] = load<T, kWidth>(next + vector * kWidth);
      write(u, g, vector);
    }
    [[maybe_unused]] const int64_t gate_base = kHasGate<kForm> ? row.in(a.gate) : 0;
    each_shared([&](int v) {
      float u[kWidth], g[kWidth];
      load_floats(place_of(v), u);
      const int vector = kKept + v;
      if constexpr (kHasGate<kForm>) load_floats(static_cast<const T*>(a.gate.data.data) + gate_base + vector * kWidth, g);
      if (more) fetch_shared(next, v);
      write(u, g, vector);
    });
    async_commit();
  }
}

template <class T, class W, Form kForm>
Status launch_long(ForwardArgs& a, const RowPlan& plan, Stream stream) {
  constexpr int64_t kMultiprocessors = 132;  // elsewhere blocks take more or fewer rows each; no row's bits depend on it
  a.shared_vectors = static_cast<int32_t>(plan.shared_vectors);
  const int64_t bytes = plan.shared_vectors * 16 + static_cast<int64_t>(sizeof(BlockShared));
  const int64_t fitting = kSharedPerMultiprocessor / (bytes + 1024);
  const int64_t resident = kMultiprocessors * (fitting < kLongResident<W, kForm> ? fitting : kLongResident<W, kForm>);
  return launch<&row_norm_forward_long<T, W, kForm>>({.grid = a.grid.rows < resident ? a.grid.rows : resident,
                                                      .block = kLongRowThreads,
                                                      .shared_bytes = static_cast<size_t>(bytes),
                                                      .stream = stream},
                                                     a);
}

}  // namespace fla::detail
