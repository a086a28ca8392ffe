// Row norms, forward. Two streams (three with a gate, four with a residual), every element read and written once: a row
// stays in registers between its statistic and its output, the end of a row longer than 32 KB in shared memory. Rows that
// fit neither, or whose addresses allow no vectors, are read again (row_norm_forward.cu).
#pragma once

#include "common/alignment.h"
#include "common/launch.h"
#include "common/ptx.cuh"
#include "common/row_reduce.cuh"
#include "norm/forward_row.cuh"
#include "norm/row_norm.h"
#include "norm/row_norm_forward_long.cuh"
#include "norm/row_plan.h"

namespace fla::detail {

// Rows that a group of lanes holds at once. Each costs a few dozen instructions besides those for its elements, and lanes
// that hold one vector of a row have few of these: with several rows the parameters and the addresses are found once.
template <class S, int kVectors, Form kForm>
inline constexpr int kMostTurns = kIsLean<S, kForm> ? 1 : 4 / kVectors;

// Blocks of 128 threads that shall fit a multiprocessor.
template <class T, class S, class W, int kVectors, Form kForm>
constexpr int resident_lane_blocks() {
  if (kIsLean<S, kForm>) return kIsPlain<kForm> && kVectors == 1 ? 11 : 8;
  return kHasGate<kForm> ? (sizeof(W) > sizeof(T) ? 4 : 5) : 6;
}

// Short rows: several lanes share a row, several rows share a warp; the rows of one group of lanes have the same
// parameters. Lanes beyond the last row hold zeros and store nothing, so that every lane reaches the shuffles; they read no row,
// which its owner may be overwriting.
template <class T, class S, class W, int kVectors, Form kForm>
FLA_DEVICE void forward_lanes(const ForwardArgs& a, uint32_t block) {
  constexpr int kWidth = 16 / sizeof(T), kTurns = kMostTurns<S, kVectors, kForm>;
  const int lanes = 1 << a.lanes_log2, vectors = a.columns / kWidth;
  const uint32_t turns = kTurns == 1 ? 1 : a.turns;
  const int thread = static_cast<int>(threadIdx.x), lane = thread & (lanes - 1);
  const int64_t team = (static_cast<int64_t>(block) * 128 + thread) >> a.lanes_log2;
  RowAt first = row_at<kForm>(a, team);
  first.m *= turns;
  // Of this lane's rows there are so many; of the others it holds zeros.
  const uint32_t left = first.m < a.height ? a.height - first.m : 0;
  const int count = static_cast<int>(left < turns ? left : turns);
  RowAt rows[kTurns];
  RowInRegisters<T, S, kVectors> held[kTurns];
  HeldGate<T, kVectors, kHasGate<kForm>> gate[kTurns];
  FLA_UNROLL
  for (uint32_t i = 0; i < kTurns; ++i) {
    rows[i] = {first.m, first.g, i};
    const int end = static_cast<int>(i) < count ? vectors : 0;
    held[i].read(a, rows[i], lane, lanes, end);
    gate[i].read(a, rows[i], lane, lanes, end);
  }
  constexpr bool kBeside = kVectors * kParameterRegisters<W, kWidth, kForm> <= 16;
  HeldParameters<W, kWidth, kBeside ? kVectors : 1, kForm> parameters;
  if constexpr (kBeside) parameters.read(a, first.g, lane, lanes, vectors);
  float sums[kTurns], means[kTurns] = {};
  FLA_UNROLL
  for (int i = 0; i < kTurns; ++i) sums[i] = kHasMean<kForm> ? held[i].sum() : held[i].sum_of_squares();
  warp_sum(sums, lanes);
  if constexpr (kHasMean<kForm>) {
    FLA_UNROLL
    for (int i = 0; i < kTurns; ++i) {
      means[i] = sums[i] * a.share;
      sums[i] = held[i].sum_of_deviations(means[i], lane, lanes, vectors);
    }
    warp_sum(sums, lanes);
  }
  constexpr bool kUnpackedOnce = kBeside && kVectors == 1 && kTurns > 1;  // more would not fit the registers
  Parameters<kWidth> of_rows;
  if constexpr (kUnpackedOnce) of_rows = parameters.values(a, 0);
  auto parameters_of = [&](int i, int vector) {
    if constexpr (kUnpackedOnce) return of_rows;
    else if constexpr (kBeside) return parameters.values(a, i);
    else return parameters_of_vector<W, kWidth, kForm>(a, first.g, vector);
  };
  RowStatistic statistics[kTurns];
  FLA_UNROLL
  for (int i = 0; i < kTurns; ++i) statistics[i] = {means[i], math::rsqrt(fmaf(sums[i], a.share, a.eps))};
  with_output_dtype<T, kForm>(a, [&](auto tag) {
    FLA_UNROLL
    for (int i = 0; i < kTurns; ++i)
      write_row<typename decltype(tag)::type, kForm, !kBeside>(a, held[i], parameters_of, gate[i], rows[i], statistics[i], lane, lanes,
                                                               i < count ? vectors : 0);
  });
  if (lane == 0) store_statistics<kHasMean<kForm>>(a, first, statistics, count);
}

template <class T, class S, class W, int kVectors, Form kForm>
FLA_KERNEL void FLA_BOUNDS(128, (resident_lane_blocks<T, S, W, kVectors, kForm>()))
    row_norm_forward_lanes(FLA_PARAMETERS ForwardArgs a) {
  wait_for_predecessor();
  forward_lanes<T, S, W, kVectors, kForm>(a, blockIdx.x);
}

// Two norms in one launch: the first `split` blocks work on the first.
struct ForwardPair {
  ForwardArgs first, second;
  uint32_t split = 0;
};

template <class T, class W, int kVectors>
FLA_KERNEL void FLA_BOUNDS(128, (resident_lane_blocks<T, NoSecond, W, kVectors, Form::rms>()))
    row_norm_forward_pair_lanes(FLA_PARAMETERS ForwardPair p) {
  wait_for_predecessor();
  if (blockIdx.x < p.split) forward_lanes<T, NoSecond, W, kVectors, Form::rms>(p.first, blockIdx.x);
  else forward_lanes<T, NoSecond, W, kVectors, Form::rms>(p.second, blockIdx.x - p.split);
}

template <int kVectors>
inline constexpr int kMostThreads = kVectors > 2 ? 512 : 256;

// Blocks that shall fit a multiprocessor: what the registers of the form allow.
template <class T, class S, class W, int kVectors, Form kForm>
constexpr int resident_blocks() {
  constexpr bool kJoined = !std::is_same_v<S, NoSecond>, kWideWeight = sizeof(W) == 4;
  if (kVectors > 2) return kHasGate<kForm> || (kJoined && kWideWeight) ? 1 : 2;
  return kJoined ? 4 : kVectors == 1 ? 8 : kWideWeight ? 4 : 6;
}

// One block per row, kVectors * blockDim vectors at most.
template <class T, class S, class W, int kVectors, Form kForm>
FLA_KERNEL void FLA_BOUNDS(kMostThreads<kVectors>, (resident_blocks<T, S, W, kVectors, kForm>()))
    row_norm_forward_block(FLA_PARAMETERS ForwardArgs a) {
  constexpr int kWidth = 16 / sizeof(T);
  wait_for_predecessor();
  auto* shared = shared_memory<BlockShared>();
  const int thread = static_cast<int>(threadIdx.x), threads = static_cast<int>(blockDim.x);
  const RowAt row = row_at<kForm>(a, blockIdx.x);
  const int vectors = a.columns / kWidth;
  RowInRegisters<T, S, kVectors> held;
  constexpr bool kBeside = kIsPlain<kForm> && kVectors <= 2;
  HeldParameters<W, kWidth, kBeside ? kVectors : 1, kForm> parameters;
  HeldGate<T, kVectors, kHasGate<kForm>> gate;
  held.read(a, row, thread, threads, vectors);
  gate.read(a, row, thread, threads, vectors);
  if constexpr (kBeside) parameters.read(a, row.g, thread, threads, vectors);

  constexpr int kWarps = kMostThreads<kVectors> / kWarp;
  float sum = block_sum<kWarps>(kHasMean<kForm> ? held.sum() : held.sum_of_squares(), shared->slots[0]);
  RowStatistic s;
  if constexpr (kHasMean<kForm>) {
    s.mean = sum * a.share;
    sum = block_sum<kWarps>(held.sum_of_deviations(s.mean, thread, threads, vectors), shared->slots[1]);
  }
  s.rstd = math::rsqrt(fmaf(sum, a.share, a.eps));
  if (thread == 0) store_statistic<kHasMean<kForm>>(a, row, s);
  auto parameters_of = [&](int i, int vector) {
    if constexpr (kBeside) return parameters.values(a, i);
    else return parameters_of_vector<W, kWidth, kForm>(a, row.g, vector);
  };
  auto write = [&](auto tag) {
    write_row<typename decltype(tag)::type, kForm, !kBeside>(a, held, parameters_of, gate, row, s, thread, threads, vectors);
  };
  if constexpr (kVectors > 2 && !std::is_same_v<S, NoSecond>) write(TypeTag<void>{});  // registers are short
  else with_output_dtype<T, kForm>(a, write);
}

// A problem as kernels take it.
struct Prepared {
  ForwardArgs args;
  Form form = Form::plain;
  RowPlan plan;
  DType dtype = DType::f32;
  bool aligned = false;   // unit streamed: vectors of eight elements may be used
  bool empty = false;

  bool may_be_paired() const {
    return plan.unit == RowUnit::lanes && plan.vectors <= 2 && (form == Form::plain || form == Form::rms) &&
           !args.second.data && args.weight;
  }
};
Prepared prepare(const RowNormForward&);

// Below this many bytes a launch is latency: the next kernel may then be set up while this one runs.
inline constexpr int64_t kDependentBytes = 4 << 20;
// From this many lanes on, four times as many as fit the machine, each may take several rows.
inline constexpr int64_t kManyLanes = 1 << 20;

// Gives lanes their rows; returns how many blocks of 128 that takes.
inline int64_t lane_blocks(ForwardArgs& a, const RowPlan& plan, int most_turns) {
  a.lanes_log2 = plan.lanes_log2;
  a.height = static_cast<uint32_t>(a.grid.rows / a.grid.groups);
  // Few rows had better be spread over the multiprocessors.
  a.turns = a.grid.rows << plan.lanes_log2 >= kManyLanes ? static_cast<uint32_t>(most_turns) : 1;
  return divide_up(divide_up(a.height, a.turns) * a.grid.groups << plan.lanes_log2, 128);
}

template <class T, class S, class W, Form kForm>
Status launch_form(ForwardArgs& a, const RowPlan& plan, Stream stream) {
  const bool dependent = a.grid.rows * a.columns * static_cast<int64_t>(sizeof(T)) < kDependentBytes;
  if (plan.unit == RowUnit::lanes) {
    auto go = [&](auto vectors) {
      constexpr int kVectors = decltype(vectors)::value;
      const int64_t grid = lane_blocks(a, plan, kMostTurns<S, kVectors, kForm>);
      return launch<&row_norm_forward_lanes<T, S, W, kVectors, kForm>>(
          {.grid = grid, .block = 128, .stream = stream, .dependent = dependent}, a);
    };
    if (plan.vectors == 1) return go(std::integral_constant<int, 1>{});
    if constexpr (!kIsLean<S, kForm>) {
      if (plan.vectors == 4) return go(std::integral_constant<int, 4>{});
    }
    return go(std::integral_constant<int, 2>{});
  }
  if (plan.shared_vectors > 0) {
    if constexpr (std::is_same_v<S, NoSecond>) return launch_long<T, W, kForm>(a, plan, stream);
  }
  const Launch shape{.grid = a.grid.rows,
                     .block = plan.threads,
                     .shared_bytes = sizeof(BlockShared),
                     .stream = stream,
                     .dependent = dependent};
  if constexpr (kIsLean<S, kForm>) {
    if (plan.vectors == 1) return launch<&row_norm_forward_block<T, S, W, 1, kForm>>(shape, a);
    if (plan.vectors == 2) return launch<&row_norm_forward_block<T, S, W, 2, kForm>>(shape, a);
  }
  return launch<&row_norm_forward_block<T, S, W, 4, kForm>>(shape, a);
}

// With the dtype of the second stream, which is T or f32.
template <class T, class W, Form kForm>
Status launch_with_second(ForwardArgs& a, const RowPlan& plan, Stream stream) {
  if (!a.second.data) return launch_form<T, NoSecond, W, kForm>(a, plan, stream);
  return a.second.data.dtype == DType::f32 ? launch_form<T, float, W, kForm>(a, plan, stream)
                                           : launch_form<T, T, W, kForm>(a, plan, stream);
}

template <class T, class W>
Status launch_with_parameters(ForwardArgs& a, Form form, const RowPlan& plan, Stream stream) {
  switch (form) {
    case Form::plain: return launch_form<T, NoSecond, W, Form::plain>(a, plan, stream);
    case Form::rms: return launch_with_second<T, W, Form::rms>(a, plan, stream);
    case Form::layer: return launch_with_second<T, W, Form::layer>(a, plan, stream);
    case Form::gated_rms: return launch_form<T, NoSecond, W, Form::gated_rms>(a, plan, stream);
    default: return launch_form<T, NoSecond, W, Form::gated_layer>(a, plan, stream);
  }
}

// x and the gate in T, the second stream in T or f32, weight and bias both in T or both in f32. Instantiated once per
// dtype (row_norm_forward_*.cu), so that they compile side by side.
template <class T>
Status row_norm_forward(ForwardArgs a, Form form, const RowPlan& plan, Stream stream) {
  const bool f32_parameters = (a.weight ? a.weight : a.bias).dtype == DType::f32;
  return f32_parameters ? launch_with_parameters<T, float>(a, form, plan, stream)
                        : launch_with_parameters<T, T>(a, form, plan, stream);
}

// Two norms of form rms and unit lanes with one plan, no second stream and parameters of one dtype.
template <class T, class W>
Status launch_pair(ForwardPair& p, const RowPlan& plan, Stream stream) {
  auto go = [&](auto vectors) {
    constexpr int kVectors = decltype(vectors)::value, kTurns = kMostTurns<NoSecond, kVectors, Form::rms>;
    const int64_t first = lane_blocks(p.first, plan, kTurns), second = lane_blocks(p.second, plan, kTurns);
    if (first + second > 0x7fffffff) return launch_shape_error("grid", first + second);
    p.split = static_cast<uint32_t>(first);
    const int64_t bytes = (p.first.grid.rows + p.second.grid.rows) * p.first.columns * static_cast<int64_t>(sizeof(T));
    return launch<&row_norm_forward_pair_lanes<T, W, kVectors>>(
        {.grid = first + second, .block = 128, .stream = stream, .dependent = bytes < kDependentBytes}, p);
  };
  return plan.vectors == 1 ? go(std::integral_constant<int, 1>{}) : go(std::integral_constant<int, 2>{});
}
template <class T>
Status row_norm_forward_pair(ForwardPair p, const RowPlan& plan, Stream stream) {
  return p.first.weight.dtype == DType::f32 ? launch_pair<T, float>(p, plan, stream) : launch_pair<T, T>(p, plan, stream);
}

}  // namespace fla::detail
