// Row norms, backward, evenly spaced rows of 2 KB and more: persistent blocks, a ring of rows in shared memory filled
// by bulk copies. Rows beyond 16 KB are split over a cluster of blocks, which tell each other their sums.
//
// 3 streams (u, dy read, dx written; 4 with the residual gradient, 5 with a gate) and one barrier per row. Registers
// cannot hold enough loads in flight: prefetching the next row into them tops out 14 % lower than the ring, which keeps
// 64 KB and more in flight on every multiprocessor (4257 against 3658 GB/s at N = 4096 on an H200). Column sums live in
// registers for the block's whole life and leave as one row of partial sums.
#pragma once

#include "norm/row_norm_backward.cuh"

namespace fla::detail {

inline constexpr int kMaxStages = 8;

template <int kValues>
struct RingShared {
  BlockSlots<kValues> slots[2];
  float of_block[2][kValues][8];  // what the blocks of a cluster found
  TransactionBarrier u[kMaxStages], dy[kMaxStages], third[kMaxStages];
};

// Rows of one operand into one stage of the ring. A row of the stage is copied by itself unless rows are adjacent.
FLA_DEVICE void fetch(const BackwardArgs& a, const RowOperand& operand, int element_bytes, int64_t first_row,
                      int first_column, int columns, unsigned char* stage, TransactionBarrier* barrier) {
  const int64_t left = a.grid.rows - first_row;
  const int rows = left < a.rows_per_stage ? static_cast<int>(left) : a.rows_per_stage;
  const uint32_t row_bytes = static_cast<uint32_t>(columns) * static_cast<uint32_t>(element_bytes);
  const auto* base =
      static_cast<const unsigned char*>(operand.data.data) + static_cast<int64_t>(first_column) * element_bytes;
  barrier_expect(barrier, row_bytes * static_cast<uint32_t>(rows));
  if (operand.stride_m == columns) {
    bulk_load(stage, base + a.grid.offset<true>(first_row, operand) * element_bytes, row_bytes * static_cast<uint32_t>(rows),
              barrier);
  } else {
    FLA_NO_UNROLL
    for (int r = 0; r < rows; ++r)
      bulk_load(stage + r * row_bytes, base + a.grid.offset<true>(first_row + r, operand) * element_bytes, row_bytes, barrier);
  }
  bulk_commit(barrier);
}

// Each thread keeps two vectors of every operand between their two uses.
template <class U, class Y, class Form>
FLA_KERNEL void FLA_BOUNDS(512, 1) row_norm_backward_ring_kernel(FLA_PARAMETERS BackwardArgs a) {
  constexpr int kWidth = 16 / (sizeof(U) > sizeof(Y) ? sizeof(U) : sizeof(Y));
  constexpr int kVectors = 2;
  const int thread = static_cast<int>(threadIdx.x), threads = static_cast<int>(blockDim.x);
  // This block's columns of the row.
  const int rank = a.cluster > 1 ? cluster_rank() : 0, first_column = rank * a.slice;
  const int columns = a.columns - first_column < a.slice ? a.columns - first_column : a.slice, chunks = columns / kWidth;
  const int64_t block = a.cluster > 1 ? blockIdx.x / static_cast<uint32_t>(a.cluster) : blockIdx.x;
  // The gate, or the gradient of residual_out: never both (row_norm_backward.cu).
  const RowOperand& third = Form::kGated ? a.gate : a.dresidual_out;
  const bool with_third = Form::kGated || third.data.data != nullptr;
  const int64_t u_bytes = static_cast<int64_t>(a.slice) * sizeof(U) * a.rows_per_stage;
  const int64_t dy_bytes = static_cast<int64_t>(a.slice) * sizeof(Y) * a.rows_per_stage;
  const int64_t stage_bytes = u_bytes + dy_bytes + (with_third ? u_bytes : 0);
  auto* ring = shared_memory<unsigned char>();
  auto* shared = reinterpret_cast<RingShared<RowMeans<Form>::kValues>*>(ring + stage_bytes * a.stages);

  if (thread == 0) {
    for (int s = 0; s < a.stages; ++s) {
      barrier_init(&shared->u[s]);
      barrier_init(&shared->dy[s]);
      barrier_init(&shared->third[s]);
    }
  }
  // No block may store to one that has not begun.
  if (a.cluster > 1) cluster_barrier();
  else block_barrier();
  // Three warps issue one operand each: a single thread cannot issue copies fast enough for short rows.
  auto refill = [&](int64_t row, int stage) {
    if (row >= a.grid.rows) return;
    unsigned char* at = ring + stage * stage_bytes;
    if (thread == 0) fetch(a, a.u, sizeof(U), row, first_column, columns, at, &shared->u[stage]);
    if (thread == 32) fetch(a, a.dy, sizeof(Y), row, first_column, columns, at + u_bytes, &shared->dy[stage]);
    if (thread == 64 && with_third)
      fetch(a, third, sizeof(U), row, first_column, columns, at + u_bytes + dy_bytes, &shared->third[stage]);
  };
  const int64_t step = a.parts * a.rows_per_stage, first = block * a.rows_per_stage;
  // With parameters per group, a.parts is a multiple of their number and a block meets one group's rows only.
  const uint32_t group = a.parameter_groups == 1 ? 0 : static_cast<uint32_t>(block % a.parameter_groups);
  FLA_NO_UNROLL
  for (int s = 0; s < a.stages; ++s) refill(first + s * step, s);

  // A gate and two column sums leave no registers for the weights.
  constexpr bool kKeepWeight = Form::kSums > 0 && !(Form::kGated && Form::kSums > 1);
  const int64_t weight_base = group * a.weight_stride + first_column;
  float weight[kKeepWeight ? kVectors : 1][kWidth];
  if constexpr (kKeepWeight) {
    FLA_UNROLL
    for (int i = 0; i < kVectors; ++i) {
      const int chunk = thread + i * threads;
      if (chunk < chunks) load_weight(a, weight_base + chunk * kWidth, weight[i]);
    }
  }
  auto weight_of = [&](int i, int column, float (&w)[kWidth]) {
    if constexpr (Form::kSums > 0 && !kKeepWeight) {
      load_weight(a, weight_base + column, w);
    } else {
      FLA_UNROLL
      for (int e = 0; e < kWidth; ++e) w[e] = Form::kSums > 0 ? weight[i][e] : 1.0f;
    }
  };
  float dweight[kVectors][kWidth] = {}, dbias[Form::kSums > 1 ? kVectors : 1][kWidth] = {};

  // Each row's statistic is asked for one row ahead: it would otherwise be a trip to memory between two rows.
  auto load_ahead = [&](int64_t row) {
    return row < a.grid.rows ? load_statistic<true>(a, row, Form::kCentred) : StoredStatistic{};
  };
  StoredStatistic statistic = load_ahead(first);

  int stage = 0, slot = 0;
  uint32_t parity = 0;
  for (int64_t base = first; base < a.grid.rows; base += step) {
    barrier_wait(&shared->u[stage], parity);
    barrier_wait(&shared->dy[stage], parity);
    if (with_third) barrier_wait(&shared->third[stage], parity);
    const int64_t left = a.grid.rows - base;
    const int rows = left < a.rows_per_stage ? static_cast<int>(left) : a.rows_per_stage;
    FLA_NO_UNROLL
    for (int r = 0; r < rows; ++r) {
      const int64_t row = base + r;
      const StoredStatistic next_statistic = load_ahead(r + 1 < rows ? row + 1 : base + step);
      const unsigned char* at = ring + stage * stage_bytes;
      const U* su = reinterpret_cast<const U*>(at) + r * columns;
      const Y* sdy = reinterpret_cast<const Y*>(at + u_bytes) + r * columns;
      const U* sthird = reinterpret_cast<const U*>(at + u_bytes + dy_bytes) + r * columns;
      Vector<U, kWidth> vu[kVectors], vthird[kVectors];
      Vector<Y, kWidth> vdy[kVectors];
      float means[2] = {}, means_of_s[2] = {};
      FLA_UNROLL
      for (int i = 0; i < kVectors; ++i) {
        const int chunk = thread + i * threads;
        if (chunk < chunks) {
          vu[i] = load<U, kWidth>(su + chunk * kWidth);
          vdy[i] = load<Y, kWidth>(sdy + chunk * kWidth);
          if (with_third) vthird[i] = load<U, kWidth>(sthird + chunk * kWidth);
          float u[kWidth], dy[kWidth], gate[kWidth], w[kWidth];
          unpack(vu[i], u);
          unpack(vdy[i], dy);
          if constexpr (Form::kGated) unpack(vthird[i], gate);
          weight_of(i, chunk * kWidth, w);
          to_terms<Form>(a, statistic, gate, true, u, dy);
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
      RowMeans<Form> mean;
      mean.value[0] = means[0] + means[1];
      if constexpr (Form::kCentred) mean.value[1] = means_of_s[0] + means_of_s[1];
      block_sum(mean.value, shared->slots[slot]);
      if (a.cluster > 1) {
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
      if (r + 1 == rows) refill(base + a.stages * step, stage);
      const RowOffsets<true> to(a, row, group);
      FLA_UNROLL
      for (int i = 0; i < kVectors; ++i) {
        const int chunk = thread + i * threads, column = chunk * kWidth;
        if (chunk < chunks) {
          float u[kWidth], dy[kWidth], extra[kWidth], w[kWidth];
          unpack(vu[i], u);
          unpack(vdy[i], dy);
          unpack(vthird[i], extra);
          weight_of(i, column, w);
          write_gradients<Form, U, Y>(a, statistic, mean, u, dy, extra, true, extra, !Form::kGated && with_third, w, to,
                                      first_column + column);
        }
      }
      statistic = next_statistic;
    }
    if (++stage == a.stages) {
      stage = 0;
      parity ^= 1;
    }
  }
  FLA_UNROLL
  for (int i = 0; i < kVectors; ++i) {
    const int chunk = thread + i * threads;
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
  a.rows_per_stage = plan.rows_per_stage;
  const bool with_third = a.gate.data || a.dresidual_out.data;
  a.cluster = plan.cluster;
  a.slice = static_cast<int32_t>(plan.slice_chunks * 16 / static_cast<int64_t>(sizeof(U) > sizeof(Y) ? sizeof(U) : sizeof(Y)));
  const int64_t row_bytes = static_cast<int64_t>(a.slice) * (sizeof(U) + sizeof(Y) + (with_third ? sizeof(U) : 0));
  const Launch shape{.grid = a.parts * plan.cluster,
                     .block = plan.threads,
                     .cluster = plan.cluster,
                     .shared_bytes = static_cast<size_t>(row_bytes * plan.rows_per_stage * plan.stages) + sizeof(RingShared<2>),
                     .stream = stream};
  auto go = [&](auto form) { return launch<&row_norm_backward_ring_kernel<U, Y, decltype(form)>>(shape, a); };
  if constexpr (std::is_same_v<U, Y>) {
    if (a.gate.data) {
      if (a.centred) return go(BackwardForm<2, true, true>{});
      return sums > 1 ? go(BackwardForm<2, false, true>{}) : go(BackwardForm<1, false, true>{});
    }
  }
  if (a.centred) return go(BackwardForm<2, true, false>{});
  return sums > 1   ? go(BackwardForm<2, false, false>{})
         : sums > 0 ? go(BackwardForm<1, false, false>{})
                    : go(BackwardForm<0, false, false>{});
}

}  // namespace fla::detail

