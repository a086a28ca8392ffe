// Row norms, forward. Two streams (three with a gate, four with a residual), every element read and written once: a row
// stays in registers between its statistic and its output, the end of a row longer than 32 KB in shared memory, fetched
// by one bulk copy while the registers fill. Rows that fit neither, or whose addresses allow no vectors, are read again
// (row_norm_forward.cu).
#pragma once

#include "common/alignment.h"
#include "common/launch.h"
#include "common/ptx.cuh"
#include "common/row_reduce.cuh"
#include "norm/forward_row.cuh"
#include "norm/row_plan.h"

namespace fla::detail {

// Short rows: several lanes share a row, several rows share a warp. Lanes beyond the last row work on it again
// without storing, so that every lane reaches the shuffles.
template <class T, class S, class W, int kVectors, Form kForm>
FLA_KERNEL void FLA_BOUNDS(128, kHasGate<kForm> || kHasMean<kForm> ? 6 : kVectors == 1 ? 11 : 8)
    row_norm_forward_lanes(FLA_PARAMETERS ForwardArgs a) {
  constexpr int kWidth = 16 / sizeof(T);
  wait_for_predecessor();
  const int lanes = 1 << a.lanes_log2, vectors = a.columns / kWidth;
  const int thread = static_cast<int>(threadIdx.x), lane = thread & (lanes - 1);
  const int64_t wanted = (static_cast<int64_t>(blockIdx.x) * 128 + thread) >> a.lanes_log2;
  const bool mine = wanted < a.grid.rows;
  const int64_t row = mine ? wanted : a.grid.rows - 1;
  RowInRegisters<T, S, kVectors> held;
  HeldWeight<W, kWidth, kVectors> weight;
  HeldGate<T, kVectors, kHasGate<kForm>> gate;
  held.template read<kForm>(a, row, lane, lanes, vectors);
  gate.read(a, row, lane, lanes, vectors);
  weight.read(a, row_group<kForm>(a, row), lane, lanes, vectors);
  RowStatistic s;
  float sum = kHasMean<kForm> ? held.sum() : held.sum_of_squares();
  sum = warp_sum(sum, lanes);
  if constexpr (kHasMean<kForm>) {
    s.mean = sum * a.share;
    sum = warp_sum(held.sum_of_deviations(s.mean, lane, lanes, vectors), lanes);
  }
  s.rstd = math::rsqrt(fmaf(sum, a.share, a.eps));
  write_row<kForm>(a, held, &weight, gate, row, s, lane, lanes, mine ? vectors : 0);
  if (mine && lane == 0) store_statistic<kHasMean<kForm>>(a, row, s);
}

struct BlockShared {
  BlockSlots<1> slots[2];
  TransactionBarrier barrier;
};

// Blocks that shall fit a multiprocessor, of at most 512 threads: what the registers of the form allow.
template <Form kForm, int kVectors, size_t kWeightBytes>
inline constexpr int kResidentBlocks =
    kVectors > 2 ? (kHasGate<kForm> ? 1 : 2) : !kIsPlain<kForm> ? 2 : kVectors == 1 ? 4 : kWeightBytes == 2 ? 3 : 2;

// One block per row; the first kVectors * blockDim vectors in registers, the rest (if any) in shared memory.
template <class T, class S, class W, int kVectors, Form kForm>
FLA_KERNEL void FLA_BOUNDS(512, (kResidentBlocks<kForm, kVectors, sizeof(W)>))
    row_norm_forward_block(FLA_PARAMETERS ForwardArgs a) {
  constexpr int kWidth = 16 / sizeof(T);
  constexpr bool kHoldWeight = kVectors <= 2;
  wait_for_predecessor();
  using Row = RowInRegisters<T, S, kVectors>;
  constexpr bool kTail = !Row::kJoined && kVectors > 2;
  auto* shared = shared_memory<unsigned char>();
  auto* control = reinterpret_cast<BlockShared*>(shared + static_cast<int64_t>(a.shared_vectors) * 16);
  const int thread = static_cast<int>(threadIdx.x), threads = static_cast<int>(blockDim.x);
  const int64_t row = blockIdx.x;
  const int vectors = a.columns / kWidth, kept = vectors - a.shared_vectors;
  if (a.shared_vectors > 0 && thread == 0) {
    const T* x = static_cast<const T*>(a.x.data.data) + a.grid.offset(row, a.x);
    const auto bytes = static_cast<uint32_t>(a.shared_vectors) * 16;
    barrier_init(&control->barrier);
    barrier_expect(&control->barrier, bytes);
    bulk_load(shared, x + static_cast<int64_t>(kept) * kWidth, bytes, &control->barrier);
    bulk_commit(&control->barrier);
  }
  Row held;
  HeldWeight<W, kWidth, kVectors> weight;
  HeldGate<T, kVectors, kHasGate<kForm>> gate;
  held.template read<kForm>(a, row, thread, threads, kept);
  gate.read(a, row, thread, threads, kept);
  if constexpr (kHoldWeight) weight.read(a, row_group<kForm>(a, row), thread, threads, kept);

  // Visits the vectors in shared memory.
  auto each_shared = [&](auto visit) {
    FLA_UNROLL_BY(4)
    for (int v = thread; v < a.shared_vectors; v += threads) {
      float u[kWidth];
      load_floats(reinterpret_cast<const T*>(shared) + v * kWidth, u);
      visit(u, v);
    }
  };
  float sum = kHasMean<kForm> ? held.sum() : held.sum_of_squares();
  if constexpr (kTail) {
    if (a.shared_vectors > 0) {
      block_barrier();  // the transaction barrier is initialised
      barrier_wait(&control->barrier, 0);
      each_shared([&](float (&u)[kWidth], int) {
        FLA_UNROLL
        for (int e = 0; e < kWidth; ++e) sum = kHasMean<kForm> ? sum + u[e] : fmaf(u[e], u[e], sum);
      });
    }
  }
  sum = block_sum(sum, control->slots[0]);
  RowStatistic s;
  if constexpr (kHasMean<kForm>) {
    s.mean = sum * a.share;
    sum = held.sum_of_deviations(s.mean, thread, threads, kept);
    if constexpr (kTail) each_shared([&](float (&u)[kWidth], int) { add_deviations(u, s.mean, sum); });
    sum = block_sum(sum, control->slots[1]);
  }
  s.rstd = math::rsqrt(fmaf(sum, a.share, a.eps));
  if (thread == 0) store_statistic<kHasMean<kForm>>(a, row, s);
  write_row<kForm>(a, held, kHoldWeight ? &weight : nullptr, gate, row, s, thread, threads, kept);
  if constexpr (kTail) {
    const uint32_t group = a.grid.group(row);
    const RowTarget to = row_target<kForm>(a, row, group);
    const int64_t gate_base = kHasGate<kForm> ? a.grid.offset(row, a.gate) : 0;
    each_shared([&](float (&u)[kWidth], int v) {
      float w[kWidth], g[kWidth];
      const int column = (kept + v) * kWidth;
      load_weight(a, group * a.weight_stride + column, w);
      if constexpr (kHasGate<kForm>) load_floats(static_cast<const T*>(a.gate.data.data) + gate_base + column, g);
      write_vector<T, kForm>(a, u, w, g, kHasGate<kForm>, s, to, column);
    });
  }
}

// Below this many bytes a launch is latency: the next kernel may then be set up while this one runs.
inline constexpr int64_t kDependentBytes = 4 << 20;

template <class T, class S, class W, Form kForm>
Status launch_form(ForwardArgs& a, const RowPlan& plan, Stream stream) {
  const bool dependent = a.grid.rows * a.columns * static_cast<int64_t>(sizeof(T)) < kDependentBytes;
  if (plan.unit == RowUnit::lanes) {
    a.lanes_log2 = plan.lanes_log2;
    const Launch shape{
        .grid = divide_up(a.grid.rows << plan.lanes_log2, 128), .block = 128, .stream = stream, .dependent = dependent};
    return plan.vectors == 1 ? launch<&row_norm_forward_lanes<T, S, W, 1, kForm>>(shape, a)
                             : launch<&row_norm_forward_lanes<T, S, W, 2, kForm>>(shape, a);
  }
  a.shared_vectors = static_cast<int32_t>(plan.shared_vectors);
  const Launch shape{.grid = a.grid.rows,
                     .block = plan.threads,
                     .shared_bytes = static_cast<size_t>(plan.shared_vectors) * 16 + sizeof(BlockShared),
                     .stream = stream,
                     .dependent = dependent};
  if (plan.vectors == 1) return launch<&row_norm_forward_block<T, S, W, 1, kForm>>(shape, a);
  if (plan.vectors == 2) return launch<&row_norm_forward_block<T, S, W, 2, kForm>>(shape, a);
  return launch<&row_norm_forward_block<T, S, W, 4, kForm>>(shape, a);
}

// With the dtype of the second stream, which is T or f32.
template <class T, class W, Form kForm>
Status launch_with_second(ForwardArgs& a, const RowPlan& plan, Stream stream) {
  if (!a.second.data) return launch_form<T, NoSecond, W, kForm>(a, plan, stream);
  return a.second.data.dtype == DType::f32 ? launch_form<T, float, W, kForm>(a, plan, stream)
                                           : launch_form<T, T, W, kForm>(a, plan, stream);
}

// x and the gate in T, the second stream in T or f32, weights in T or f32 unless the form takes any. Instantiated once
// per dtype (row_norm_forward_*.cu), so that they compile side by side.
template <class T>
Status row_norm_forward(ForwardArgs a, Form form, const RowPlan& plan, Stream stream) {
  const bool f32_weight = a.weight && a.weight.dtype == DType::f32;
  switch (form) {
    case Form::plain:
      return f32_weight ? launch_form<T, NoSecond, float, Form::plain>(a, plan, stream)
                        : launch_form<T, NoSecond, T, Form::plain>(a, plan, stream);
    case Form::rms:
      return f32_weight ? launch_with_second<T, float, Form::rms>(a, plan, stream)
                        : launch_with_second<T, T, Form::rms>(a, plan, stream);
    case Form::layer: return launch_with_second<T, LateWeight, Form::layer>(a, plan, stream);
    case Form::gated_rms: return launch_form<T, NoSecond, LateWeight, Form::gated_rms>(a, plan, stream);
    default: return launch_form<T, NoSecond, LateWeight, Form::gated_layer>(a, plan, stream);
  }
}

}  // namespace fla::detail
