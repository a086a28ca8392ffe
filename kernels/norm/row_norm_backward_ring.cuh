// Row norms, backward, evenly spaced rows of 2 KB and more: persistent blocks, a ring of rows in shared memory filled by
// bulk copies. Rows beyond 16 KB are split over a cluster of blocks, which tell each other their sums.
//
// 3 streams (u, dy read, dx written; 4 with the residual gradient, 5 with a gate) and one barrier per row. Registers cannot
// hold enough loads in flight: prefetching the next row into them tops out 14 % lower. Column sums live in registers for
// the block's whole life and leave as one row of partial sums.
//
// The pace matters more than the depth: two rows in flight per block are enough. Blocks that do nothing but wait for
// memory fill its queues until loads and stores hold each other up: rms norms in blocks of 256 threads and fewer are faster
// when each row waits for its statistic (N = 1024 on an H200: 103 us, 112 when that is asked for a row ahead; a gated one of
// N = 4096: 170 and 186). One block of 512 threads is on the other side of the optimum (N = 8192: 106 to 110 us with the row
// ahead, 115 without), and so are layer norms with their two sums. Rows of 65536 reach 61 % of a copy whether two, three or four
// are in flight.
#pragma once

#include "norm/row_norm_backward.cuh"

namespace fla::detail {

inline constexpr int kMaxStages = 4;

template <int kValues>
struct RingShared {
  BlockSlots<kValues> slots[2];
  float of_block[2][kValues][8];  // what the blocks of a cluster found
  TransactionBarrier filled[kMaxStages];
};

// What a gate made of a chunk, in shared memory between its two uses: four float4 (two in fp32) of each thread, a warp's side
// by side. With these and the weights at hand a gated rms norm of N = 4096 takes 170 us, a gated layer norm 188; when gates were
// made again and weights loaded again for the second pass these were 194 and 240.
template <class Form, int kThreads, int kVectors, int kWidth>
inline constexpr int kGateBytes = Form::kGated && kVectors > 1 ? kThreads * kVectors * kWidth * 8 : 0;

template <int kThreads, int kWidth>
struct GateSlot {
  static constexpr int kParts = kWidth / 4;
  unsigned char* at;

  FLA_DEVICE GateSlot(unsigned char* base, int i) : at(base + (i * 2 * kParts * kThreads + static_cast<int>(threadIdx.x)) * 16) {}
  FLA_DEVICE float* place(int part) const { return reinterpret_cast<float*>(at + part * kThreads * 16); }
  FLA_DEVICE void keep(const KeptGate<kWidth, true>& kept) const {
    FLA_UNROLL
    for (int part = 0; part < kParts; ++part) {
      const float *v = kept.value + 4 * part, *s = kept.slope + 4 * part;
      store_floats(place(part), {v[0], v[1], v[2], v[3]});
      store_floats(place(kParts + part), {s[0], s[1], s[2], s[3]});
    }
  }
  FLA_DEVICE void recall(KeptGate<kWidth, true>& kept) const {
    FLA_UNROLL
    for (int part = 0; part < kParts; ++part) {
      float v[4], s[4];
      load_floats(place(part), v);
      load_floats(place(kParts + part), s);
      FLA_UNROLL
      for (int e = 0; e < 4; ++e) {
        kept.value[4 * part + e] = v[e];
        kept.slope[4 * part + e] = s[e];
      }
    }
  }
};

// Each thread keeps kVectors vectors of every operand between their two uses, and what a gate made of them: of one vector in
// registers, of more in shared memory.
template <class U, class Y, class Form, int kThreads, int kVectors, bool kCluster>
FLA_KERNEL void FLA_BOUNDS(kThreads, ring_blocks(kThreads, Form::kSums <= 1 && !Form::kCentred && !Form::kGated))
    row_norm_backward_ring_kernel(FLA_PARAMETERS BackwardArgs a) {
  constexpr int kWidth = 16 / (sizeof(U) > sizeof(Y) ? sizeof(U) : sizeof(Y));
  constexpr bool kGateInShared = Form::kGated && kVectors > 1;
  release_dependents();
  const int thread = static_cast<int>(threadIdx.x);
  // This block's columns of the row.
  int rank = 0, first_column = 0, columns = a.columns;
  int64_t block = blockIdx.x;
  if constexpr (kCluster) {
    rank = cluster_rank();
    first_column = rank * a.slice;
    columns = a.columns - first_column < a.slice ? a.columns - first_column : a.slice;
    block = blockIdx.x / static_cast<uint32_t>(a.cluster);
  }
  const int chunks = columns / kWidth;
  // The gate, or the gradient of residual_out: never both (row_norm_backward.cu).
  const RowOperand& third = Form::kGated ? a.gate : a.dresidual_out;
  const bool with_third = Form::kGated || third.data.data != nullptr;
  const int u_bytes = columns * static_cast<int>(sizeof(U)), dy_bytes = columns * static_cast<int>(sizeof(Y));
  const int row_bytes = u_bytes + dy_bytes + (with_third ? u_bytes : 0);
  // Of the widest slice, which need not be this block's.
  const int stage_bytes = a.slice * static_cast<int>(sizeof(U) + sizeof(Y) + (with_third ? sizeof(U) : 0));
  auto* ring = shared_memory<unsigned char>();
  unsigned char* gates = ring + stage_bytes * a.stages;
  auto* shared_weights = reinterpret_cast<float*>(gates + kGateBytes<Form, kThreads, kVectors, kWidth>);
  auto* shared = reinterpret_cast<RingShared<RowMeans<Form>::kValues>*>(shared_weights + (kGateInShared ? a.slice : 0));

  if (thread == 0) {
    FLA_NO_UNROLL
    for (int s = 0; s < a.stages; ++s) barrier_init(&shared->filled[s]);
  }
  // No block may store to one that has not begun.
  if constexpr (kCluster) cluster_barrier();
  else block_barrier();
  auto refill = [&](int64_t row, int stage) {
    if (thread != 0 || row >= a.grid.rows) return;
    unsigned char* at = ring + stage * stage_bytes;
    TransactionBarrier* filled = &shared->filled[stage];
    barrier_expect(filled, static_cast<uint32_t>(row_bytes));
    bulk_load(at, static_cast<const U*>(a.u.data.data) + row * a.u.stride_m + first_column,
              static_cast<uint32_t>(u_bytes), filled);
    at += u_bytes;
    bulk_load(at, static_cast<const Y*>(a.dy.data.data) + row * a.dy.stride_m + first_column,
              static_cast<uint32_t>(dy_bytes), filled);
    at += dy_bytes;
    if (with_third)
      bulk_load(at, static_cast<const U*>(third.data.data) + row * third.stride_m + first_column,
                static_cast<uint32_t>(u_bytes), filled);
    bulk_commit(filled);
  };
  // With parameters per group, a.parts is a multiple of their number and a block meets one group's rows only.
  const uint32_t group = a.parameter_groups == 1 ? 0 : static_cast<uint32_t>(block % a.parameter_groups);
  FLA_NO_UNROLL
  for (int s = 0; s < a.stages; ++s) refill(block + s * a.parts, s);

  // A gate leaves no registers for the weights: they wait in shared memory, or are loaded again.
  constexpr bool kKeepWeight = Form::kSums > 0 && !Form::kGated;
  const int64_t weight_base = group * a.weight_stride + first_column;
  float weight[kKeepWeight || kGateInShared ? kVectors : 1][kWidth];
  if constexpr (kKeepWeight || kGateInShared) {
    FLA_UNROLL
    for (int i = 0; i < kVectors; ++i) {
      const int chunk = thread + i * kThreads;
      if (chunk >= chunks) continue;
      load_weight(a, weight_base + chunk * kWidth, weight[i]);
      if constexpr (kGateInShared) store_floats(shared_weights + chunk * kWidth, weight[i]);
    }
  }
  auto weight_of = [&](int i, int column, float (&w)[kWidth]) {
    if constexpr (kGateInShared) {
      load_floats(shared_weights + column, w);
    } else if constexpr (Form::kSums > 0 && !kKeepWeight) {
      load_weight(a, weight_base + column, w);
    } else {
      FLA_UNROLL
      for (int e = 0; e < kWidth; ++e) w[e] = Form::kSums > 0 ? weight[i][e] : 1.0f;
    }
  };
  float dweight[kVectors][kWidth] = {}, dbias[Form::kSums > 1 ? kVectors : 1][kWidth] = {};

  auto row_number = [](int64_t row) { return RowAt{static_cast<uint32_t>(row), 0}; };  // groups are collapsed
  // Known when compiled: with both ways in the loop ptxas makes either wait for the load of the other.
  constexpr bool kAhead = Form::kCentred || kThreads == 512;
  StoredStatistic next_statistic;
  if (kAhead && block < a.grid.rows) next_statistic = load_statistic(a, row_number(block), Form::kCentred);

  int stage = 0, slot = 0;
  uint32_t parity = 0;
  FLA_NO_UNROLL
  for (int64_t row = block; row < a.grid.rows; row += a.parts) {
    const StoredStatistic statistic = kAhead ? next_statistic : load_statistic(a, row_number(row), Form::kCentred);
    if (kAhead && row + a.parts < a.grid.rows)
      next_statistic = load_statistic(a, row_number(row + a.parts), Form::kCentred);
    barrier_wait(&shared->filled[stage], parity);
    const unsigned char* at = ring + stage * stage_bytes;
    const U* su = reinterpret_cast<const U*>(at);
    const Y* sdy = reinterpret_cast<const Y*>(at + u_bytes);
    const U* sthird = reinterpret_cast<const U*>(at + u_bytes + dy_bytes);
    Vector<U, kWidth> vu[kVectors], vthird[kVectors];
    Vector<Y, kWidth> vdy[kVectors];
    KeptGate<kWidth, Form::kGated> kept[kGateInShared ? 1 : kVectors];
    float means[2] = {}, means_of_s[2] = {};
    FLA_UNROLL
    for (int i = 0; i < kVectors; ++i) {
      const int chunk = thread + i * kThreads;
      if (chunk < chunks) {
        vu[i] = load<U, kWidth>(su + chunk * kWidth);
        vdy[i] = load<Y, kWidth>(sdy + chunk * kWidth);
        if (with_third) vthird[i] = load<U, kWidth>(sthird + chunk * kWidth);
        float u[kWidth], dy[kWidth], gate[kWidth], w[kWidth];
        unpack(vu[i], u);
        unpack(vdy[i], dy);
        if constexpr (Form::kGated) unpack(vthird[i], gate);
        weight_of(i, chunk * kWidth, w);
        to_terms<Form>(a, statistic, gate, true, u, dy, &kept[kGateInShared ? 0 : i]);
        if constexpr (kGateInShared) GateSlot<kThreads, kWidth>(gates, i).keep(kept[0]);
        FLA_UNROLL
        for (int e = 0; e < kWidth; ++e) {
          if constexpr (Form::kSums > 0) dweight[i][e] = fmaf(dy[e], u[e], dweight[i][e]);
          if constexpr (Form::kSums > 1) dbias[i][e] += dy[e];
          const float s = dy[e] * w[e];
          means[e % 2] = fmaf(u[e], s, means[e % 2]);
          if constexpr (Form::kCentred) means_of_s[e % 2] += s;
        }
      }
    }
    // The barrier inside also says that every thread has emptied its part of this row.
    constexpr int kWarps = kThreads < 128 ? 4 : kThreads / kWarp;
    RowMeans<Form> mean;
    mean.value[0] = means[0] + means[1];
    if constexpr (Form::kCentred) mean.value[1] = means_of_s[0] + means_of_s[1];
    block_sum<kWarps>(mean.value, shared->slots[slot]);
    if constexpr (kCluster) {
      // One row ahead at most, nobody overwrites what another still reads.
      auto& of_block = shared->of_block[slot];
      FLA_UNROLL
      for (int v = 0; v < RowMeans<Form>::kValues; ++v)
        if (thread < a.cluster) cluster_store(&of_block[v][rank], thread, mean.value[v]);
      cluster_barrier();
      FLA_UNROLL
      for (int v = 0; v < RowMeans<Form>::kValues; ++v) {
        mean.value[v] = of_block[v][0];
        for (int b = 1; b < a.cluster; ++b) mean.value[v] += of_block[v][b];
      }
    }
    FLA_UNROLL
    for (float& m : mean.value) m *= a.share;
    slot ^= 1;
    refill(row + a.stages * a.parts, stage);
    const BackwardRow to{row_number(row), group};
    FLA_UNROLL
    for (int i = 0; i < kVectors; ++i) {
      const int chunk = thread + i * kThreads, column = chunk * kWidth;
      if (chunk < chunks) {
        float u[kWidth], dy[kWidth], extra[kWidth], w[kWidth];
        unpack(vu[i], u);
        unpack(vdy[i], dy);
        unpack(vthird[i], extra);
        weight_of(i, column, w);
        if constexpr (kGateInShared) GateSlot<kThreads, kWidth>(gates, i).recall(kept[0]);
        write_gradients<Form, U, Y>(a, statistic, mean, u, dy, extra, true, extra, !Form::kGated && with_third, w, to,
                                    first_column + column, &kept[kGateInShared ? 0 : i]);
      }
    }
    if (++stage == a.stages) {
      stage = 0;
      parity ^= 1;
    }
  }
  FLA_UNROLL
  for (int i = 0; i < kVectors; ++i) {
    const int chunk = thread + i * kThreads;
    if (chunk < chunks) {
      const int64_t at = block * a.columns + first_column + chunk * kWidth;
      if (Form::kSums > 0 && a.dweight_partials) store_floats(a.dweight_partials + at, dweight[i]);
      if constexpr (Form::kSums > 1) {
        if (a.dbias_partials) store_floats(a.dbias_partials + at, dbias[i]);
      }
    }
  }
}

template <class U, class Y>
Status row_norm_backward_ring(BackwardArgs a, const BackwardPlan& plan, int sums, Stream stream) {
  a.stages = plan.stages;
  const bool with_third = a.gate.data || a.dresidual_out.data;
  a.cluster = plan.cluster;
  a.slice = static_cast<int32_t>(plan.slice_chunks * 16 / static_cast<int64_t>(sizeof(U) > sizeof(Y) ? sizeof(U) : sizeof(Y)));
  const int64_t row_bytes = static_cast<int64_t>(a.slice) * (sizeof(U) + sizeof(Y) + (with_third ? sizeof(U) : 0));
  const Launch shape{.grid = a.parts * plan.cluster,
                     .block = plan.threads,
                     .cluster = plan.cluster,
                     .shared_bytes = static_cast<size_t>(row_bytes * plan.stages + plan.gate_bytes) + sizeof(RingShared<2>),
                     .stream = stream};
  auto go = [&](auto form) {
    using Form = decltype(form);
    if (plan.cluster > 1) return launch<&row_norm_backward_ring_kernel<U, Y, Form, 512, 2, true>>(shape, a);
    if constexpr (Form::kGated) {
      if (plan.vectors == 1) return launch<&row_norm_backward_ring_kernel<U, Y, Form, 128, 1, false>>(shape, a);
    } else {
      if (plan.threads == 64) return launch<&row_norm_backward_ring_kernel<U, Y, Form, 64, 2, false>>(shape, a);
    }
    if (plan.threads == 128) return launch<&row_norm_backward_ring_kernel<U, Y, Form, 128, 2, false>>(shape, a);
    if (plan.threads == 256) return launch<&row_norm_backward_ring_kernel<U, Y, Form, 256, 2, false>>(shape, a);
    return launch<&row_norm_backward_ring_kernel<U, Y, Form, 512, 2, false>>(shape, a);
  };
  if constexpr (std::is_same_v<U, Y>) {
    if (a.gate.data) {
      if (a.centred) return go(BackwardForm<2, true, true, sizeof(U) == 2>{});
      return sums > 1 ? go(BackwardForm<2, false, true, sizeof(U) == 2>{}) : go(BackwardForm<1, false, true, sizeof(U) == 2>{});
    }
  }
  if (a.centred) return go(BackwardForm<2, true, false>{});
  return sums > 1   ? go(BackwardForm<2, false, false>{})
         : sums > 0 ? go(BackwardForm<1, false, false>{})
                    : go(BackwardForm<0, false, false>{});
}

}  // namespace fla::detail

