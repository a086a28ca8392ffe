// Row norms, backward, rows of up to 2 KB: several lanes or a warp per row, several rows per block. Blocks are
// persistent where column sums are kept, else each takes one row per group of lanes.
//
// The next rows arrive while one is worked on: in registers where there is room for them, else through a ring in shared
// memory that each thread keeps to itself, by asynchronous copies. (Bulk copies of rows this short cannot be issued fast
// enough: 3127-3965 against 4063-4192 GB/s on an H200.) Each group of lanes keeps its columns' sums in registers; at the end
// the block adds them up in shared memory, in order.
#pragma once

#include "norm/row_norm_backward.cuh"

namespace fla::detail {

inline constexpr int kLanesThreads = 256;

inline constexpr int kLanesDepth = 2;  // rows in the ring; more are no faster (and kMostRowStep says how many there may be)

// One row's operands as one lane holds them.
template <class U, class Y, int kVectors>
struct LaneRow {
  static constexpr int kWidth = 16 / (sizeof(U) > sizeof(Y) ? sizeof(U) : sizeof(Y));
  Vector<U, kWidth> u[kVectors];
  Vector<U, kWidth> third[kVectors];  // the gate, or the gradient of residual_out: never both (row_norm_backward.cu)
  Vector<Y, kWidth> dy[kVectors];
};

// Where a lane's part of a row comes from, and its slots in the ring: [row of the ring][stream][vector][thread].
template <class U, class Y, int kVectors, class Form>
struct LaneSource {
  using Row = LaneRow<U, Y, kVectors>;
  static constexpr int kWidth = Row::kWidth;
  static constexpr int kUBytes = kWidth * static_cast<int>(sizeof(U)), kYBytes = kWidth * static_cast<int>(sizeof(Y));
  static FLA_HOST_DEVICE constexpr int bytes_of_row(bool with_third) {
    return kLanesThreads * kVectors * (kUBytes + kYBytes + (with_third ? kUBytes : 0));
  }

  const RowOperand& third;
  int lane, lanes, chunks;

  FLA_DEVICE bool with_third() const { return Form::kGated || third.data.data != nullptr; }
  FLA_DEVICE unsigned char* slot(int turn, int offset, int i, int bytes) const {
    return shared_memory<unsigned char>() + turn * bytes_of_row(with_third()) + kLanesThreads * offset +
           (i * kLanesThreads + static_cast<int>(threadIdx.x)) * bytes;
  }
  // Visits the chunks that are this lane's.
  template <class Visit>
  FLA_DEVICE void each(Visit&& visit) const {
    FLA_UNROLL
    for (int i = 0; i < kVectors; ++i)
      if (lane + i * lanes < chunks) visit(i, (lane + i * lanes) * kWidth);
  }

  FLA_DEVICE void fetch(const BackwardArgs& a, RowAt row, int turn) const {
    const U* u = static_cast<const U*>(a.u.data.data) + row.in(a.u);
    const Y* dy = static_cast<const Y*>(a.dy.data.data) + row.in(a.dy);
    each([&](int i, int column) {
      async_copy<kUBytes>(slot(turn, 0, i, kUBytes), u + column);
      async_copy<kYBytes>(slot(turn, kVectors * kUBytes, i, kYBytes), dy + column);
    });
    if (!with_third()) return;
    const U* from = static_cast<const U*>(third.data.data) + row.in(third);
    each([&](int i, int column) {
      async_copy<kUBytes>(slot(turn, kVectors * (kUBytes + kYBytes), i, kUBytes), from + column);
    });
  }
  FLA_DEVICE Row take(int turn) const {
    Row held;
    each([&](int i, int) {
      held.u[i] = load<U, kWidth>(reinterpret_cast<const U*>(slot(turn, 0, i, kUBytes)));
      held.dy[i] = load<Y, kWidth>(reinterpret_cast<const Y*>(slot(turn, kVectors * kUBytes, i, kYBytes)));
      if (with_third())
        held.third[i] =
            load<U, kWidth>(reinterpret_cast<const U*>(slot(turn, kVectors * (kUBytes + kYBytes), i, kUBytes)));
    });
    return held;
  }
  FLA_DEVICE Row read(const BackwardArgs& a, RowAt row) const {
    Row held;
    each([&](int i, int column) {
      held.u[i] = load<U, kWidth>(static_cast<const U*>(a.u.data.data) + row.in(a.u) + column);
      held.dy[i] = load<Y, kWidth>(static_cast<const Y*>(a.dy.data.data) + row.in(a.dy) + column);
      if (with_third())
        held.third[i] = load<U, kWidth>(static_cast<const U*>(third.data.data) + row.in(third) + column);
    });
    return held;
  }
};

// Adds up the lane groups' sums, laid out [group of lanes][columns] in shared memory, where they are of the same
// parameters, and stores a row of partial sums for each of the rest.
FLA_DEVICE void store_block_sums(const BackwardArgs& a, const float* sums, float* partials) {
  const int slots = kLanesThreads >> a.lanes_log2;
  const int kept = slots % a.parameter_groups == 0 ? a.parameter_groups : slots;
  const int count = kept * a.columns;
  for (int i = static_cast<int>(threadIdx.x); i < count; i += kLanesThreads) {
    float sum = sums[i];
    for (int at = i + count; at < slots * a.columns; at += count) sum += sums[at];
    store_float(partials + static_cast<int64_t>(blockIdx.x) * count + i, sum);
  }
}

// Blocks that shall fit a multiprocessor: as many as their registers allow without spilling.
template <class Form, int kVectors>
inline constexpr int kLanesBlocks = Form::kSums == 0 && kVectors == 2 ? 4
                                    : Form::kSums == 0 || kVectors == (Form::kGated ? 1 : 2) ? 2
                                                                                              : 1;

template <class Form>
inline constexpr bool kThroughRing = Form::kCentred || Form::kGated;

template <class U, class Y, int kVectors, class Form>
FLA_KERNEL void FLA_BOUNDS(kLanesThreads, (kLanesBlocks<Form, kVectors>))
    row_norm_backward_lanes_kernel(FLA_PARAMETERS BackwardArgs a) {
  using Row = LaneRow<U, Y, kVectors>;
  constexpr int kWidth = Row::kWidth;
  const int lanes = 1 << a.lanes_log2, rows_per_block = kLanesThreads >> a.lanes_log2, chunks = a.columns / kWidth;
  const int thread = static_cast<int>(threadIdx.x), lane = thread & (lanes - 1), own_row = thread >> a.lanes_log2;
  release_dependents();
  // Rows have 32 bits, with room for the steps beyond the last (kMostRows).
  const uint32_t step = static_cast<uint32_t>(a.parts) * static_cast<uint32_t>(rows_per_block);
  const uint32_t first = blockIdx.x * static_cast<uint32_t>(rows_per_block) + static_cast<uint32_t>(own_row);
  const auto end = static_cast<uint32_t>(a.grid.rows);
  // With parameters per group, step is a multiple of their number: a group of lanes meets one group's rows only.
  const uint32_t group =
      a.parameter_groups == 1 ? 0 : first % static_cast<uint32_t>(a.parameter_groups);

  constexpr bool kHoldsBias = Form::kGated && Form::kSums > 1;
  float weight[kVectors][kWidth], bias[kHoldsBias ? kVectors : 1][kWidth] = {};
  float dweight[Form::kSums > 0 ? kVectors : 1][kWidth] = {}, dbias[Form::kSums > 1 ? kVectors : 1][kWidth] = {};
  FLA_UNROLL
  for (int i = 0; i < kVectors; ++i) {
    const int chunk = lane + i * lanes;
    if constexpr (Form::kSums == 0) {
      FLA_UNROLL
      for (int e = 0; e < kWidth; ++e) weight[i][e] = 1.0f;
    } else if (chunk < chunks) {
      load_weight(a, group * a.weight_stride + chunk * kWidth, weight[i]);
      if constexpr (kHoldsBias) {
        if (a.bias) load_floats(a.bias, group * a.bias_stride + chunk * kWidth, bias[i]);
      }
    }
  }

  auto work = [&](const Row& held, const StoredStatistic& statistic, uint32_t row, RowAt at) {
    float means[2] = {}, means_of_s[2] = {};
    KeptGate<kWidth, Form::kGated> kept[kVectors];
    FLA_UNROLL
    for (int i = 0; i < kVectors; ++i) {
      if (row < end && lane + i * lanes < chunks) {
        float u[kWidth], dy[kWidth], gate[kWidth];
        unpack(held.u[i], u);
        unpack(held.dy[i], dy);
        if constexpr (Form::kGated) unpack(held.third[i], gate);
        to_terms<Form>(a, statistic, gate, true, u, dy, &kept[i]);
        FLA_UNROLL
        for (int e = 0; e < kWidth; ++e) {
          if constexpr (Form::kSums > 0) dweight[i][e] = fmaf(dy[e], u[e], dweight[i][e]);
          if constexpr (Form::kSums > 1) dbias[i][e] += dy[e];
          const float s = dy[e] * weight[i][e];
          means[e % 2] = fmaf(u[e], s, means[e % 2]);
          if constexpr (Form::kCentred) means_of_s[e % 2] += s;
        }
      }
    }
    RowMeans<Form> mean;
    mean.value[0] = means[0] + means[1];
    if constexpr (Form::kCentred) mean.value[1] = means_of_s[0] + means_of_s[1];
    warp_sum(mean.value, lanes);
    FLA_UNROLL
    for (float& m : mean.value) m *= a.share;
    if (row >= end) return;
    const BackwardRow to{at, group};
    FLA_UNROLL
    for (int i = 0; i < kVectors; ++i) {
      const int chunk = lane + i * lanes;
      if (chunk < chunks) {
        float u[kWidth], dy[kWidth], third[kWidth];
        unpack(held.u[i], u);
        unpack(held.dy[i], dy);
        unpack(held.third[i], third);
        const bool with_carried = !Form::kGated && a.dresidual_out.data.data;
        write_gradients<Form, U, Y>(a, statistic, mean, u, dy, third, true, third, with_carried, weight[i], to,
                                    chunk * kWidth, &kept[i], kHoldsBias ? &bias[i] : nullptr);
      }
    }
  };

  const LaneSource<U, Y, kVectors, Form> source{Form::kGated ? a.gate : a.dresidual_out, lane, lanes, chunks};
  const RowAt first_at = a.grid.at(first);
  auto statistic_of = [&](uint32_t row, RowAt at) {
    return row < end ? load_statistic(a, at, Form::kCentred) : StoredStatistic{};
  };
  auto read = [&](uint32_t row, RowAt at) { return source.read(a, row < end ? at : RowAt{}); };
  // All lanes of the block take the same number of turns, so that every shuffle has its whole warp.
  if constexpr (Form::kSums == 0) {
    work(read(first, first_at), statistic_of(first, first_at), first, first_at);
  } else {
    // Every lane of the block takes as many turns as the first.
    const uint32_t first_of_block = first - static_cast<uint32_t>(own_row);
    const uint32_t turns_of_block = first_of_block < end ? (end - first_of_block + step - 1) / step : 0;
    const RowAt step_at = a.grid.at(step);
    RowAt at = first_at;
    StoredStatistic next_statistic = statistic_of(first, at);
    if constexpr (kThroughRing<Form>) {
      auto fetch = [&](uint32_t row, RowAt row_at, int turn) {
        if (row < end) source.fetch(a, row_at, turn);
        async_commit();
      };
      RowAt fetch_at = at;
      FLA_NO_UNROLL
      for (int turn = 0; turn < kLanesDepth; ++turn) {
        fetch(first + static_cast<uint32_t>(turn) * step, fetch_at, turn);
        fetch_at = a.grid.after(fetch_at, step_at);
      }
      int turn = 0;
      uint32_t row = first;
      FLA_NO_UNROLL
      for (uint32_t left = turns_of_block; left > 0; --left, row += step) {
        const StoredStatistic statistic = next_statistic;
        const RowAt next_at = a.grid.after(at, step_at);
        next_statistic = statistic_of(row + step, next_at);
        async_wait<kLanesDepth - 1>();
        const Row held = source.take(turn);
        fetch(row + kLanesDepth * step, fetch_at, turn);
        fetch_at = a.grid.after(fetch_at, step_at);
        work(held, statistic, row, at);
        at = next_at;
        turn = turn + 1 == kLanesDepth ? 0 : turn + 1;
      }
      async_wait<0>();
      block_barrier();  // the ring's memory is the sums' now
    } else {
      Row next = read(first, at);
      uint32_t row = first;
      for (uint32_t left = turns_of_block; left > 0; --left, row += step) {
        const Row held = next;
        const StoredStatistic statistic = next_statistic;
        const RowAt next_at = a.grid.after(at, step_at);
        next = read(row + step, next_at);
        next_statistic = statistic_of(row + step, next_at);
        work(held, statistic, row, at);
        at = next_at;
      }
    }
    float* sums = shared_memory<float>();
    auto reduce = [&](const auto& own, float* partials) {
      if (!partials) return;
      FLA_UNROLL
      for (int i = 0; i < kVectors; ++i) {
        const int chunk = lane + i * lanes;
        if (chunk < chunks) {
          FLA_UNROLL
          for (int e = 0; e < kWidth; ++e) sums[own_row * a.columns + chunk * kWidth + e] = own[i][e];
        }
      }
      block_barrier();
      store_block_sums(a, sums, partials);
      block_barrier();
    };
    reduce(dweight, a.dweight_partials);
    if constexpr (Form::kSums > 1) reduce(dbias, a.dbias_partials);
  }
}

template <class U, class Y>
Status row_norm_backward_lanes(BackwardArgs a, const BackwardPlan& plan, int sums, Stream stream) {
  a.lanes_log2 = plan.lanes_log2;
  const int64_t slots = kLanesThreads >> plan.lanes_log2;
  if (!a.dweight_partials && !a.dbias_partials) a.parts = divide_up(a.grid.rows, slots);  // nothing outlives a row
  auto go = [&](auto form) {
    using Form = decltype(form);
    auto launch_with = [&](auto vectors) {
      constexpr int kVectors = decltype(vectors)::value;
      const bool with_third = a.gate.data || a.dresidual_out.data;
      const int64_t ring = kThroughRing<Form> ? kLanesDepth * LaneSource<U, Y, kVectors, Form>::bytes_of_row(with_third) : 0;
      const int64_t block_sums = slots * a.columns * static_cast<int64_t>(sizeof(float));
      const int64_t shared = Form::kSums == 0 ? 0 : ring > block_sums ? ring : block_sums;
      return launch<&row_norm_backward_lanes_kernel<U, Y, kVectors, Form>>(
          {.grid = a.parts, .block = kLanesThreads, .shared_bytes = static_cast<size_t>(shared), .stream = stream}, a);
    };
    if constexpr (Form::kGated) {
      if (plan.vectors == 1) return launch_with(std::integral_constant<int, 1>{});
    } else {
      if (plan.vectors == 4) return launch_with(std::integral_constant<int, 4>{});
    }
    return launch_with(std::integral_constant<int, 2>{});
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
