// Row norms, backward, rows of up to 2 KB: several lanes or a warp per row, several rows per block. Blocks are
// persistent where column sums are kept, else each takes one row per group of lanes.
//
// The next row's operands are loaded into registers before the current row is reduced (rows this short make bulk copies
// too small to issue fast enough: 3127-3965 against 4063-4192 GB/s on an H200). Each group of lanes keeps its columns'
// sums in registers; at the end the block adds them up in shared memory, in order.
#pragma once

#include "norm/row_norm_backward.cuh"

namespace fla::detail {

inline constexpr int kLanesThreads = 256;

// One row's operands as one lane holds them.
template <class U, class Y, int kVectors, class Form, bool kFlat>
struct LaneRow {
  static constexpr int kWidth = 16 / (sizeof(U) > sizeof(Y) ? sizeof(U) : sizeof(Y));
  Vector<U, kWidth> u[kVectors];
  Vector<U, kWidth> third[kVectors];  // the gate, or the gradient of residual_out: never both (row_norm_backward.cu)
  Vector<Y, kWidth> dy[kVectors];
  StoredStatistic statistic;

  FLA_DEVICE void read(const BackwardArgs& a, int64_t row, int lane, int lanes, int chunks) {
    const bool mine = row < a.grid.rows;
    const int64_t at = mine ? row : 0;
    const RowOperand& other = Form::kGated ? a.gate : a.dresidual_out;
    const U* pu = static_cast<const U*>(a.u.data.data) + a.grid.offset<kFlat>(at, a.u);
    const Y* pdy = static_cast<const Y*>(a.dy.data.data) + a.grid.offset<kFlat>(at, a.dy);
    const U* pthird = static_cast<const U*>(other.data.data) + a.grid.offset<kFlat>(at, other);
    FLA_UNROLL
    for (int i = 0; i < kVectors; ++i) {
      const int chunk = lane + i * lanes;
      const bool inside = mine && chunk < chunks;
      u[i] = inside ? load<U, kWidth>(pu + chunk * kWidth) : zero_vector<U, kWidth>();
      dy[i] = inside ? load<Y, kWidth>(pdy + chunk * kWidth) : zero_vector<Y, kWidth>();
      if (Form::kGated || other.data)
        third[i] = inside ? load<U, kWidth>(pthird + chunk * kWidth) : zero_vector<U, kWidth>();
    }
    statistic = mine ? load_statistic<kFlat>(a, at, Form::kCentred) : StoredStatistic{};
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
inline constexpr int kLanesBlocks = Form::kSums == 0                                      ? (kVectors == 2 ? 4 : 2)
                                    : kVectors == 1                                        ? 2
                                    : kVectors == 2 && !Form::kCentred && !Form::kGated ? 2
                                                                                           : 1;

template <class U, class Y, int kVectors, class Form, bool kFlat>
FLA_KERNEL void FLA_BOUNDS(kLanesThreads, (kLanesBlocks<Form, kVectors>))
    row_norm_backward_lanes_kernel(FLA_PARAMETERS BackwardArgs a) {
  using Row = LaneRow<U, Y, kVectors, Form, kFlat>;
  constexpr int kWidth = Row::kWidth;
  const int lanes = 1 << a.lanes_log2, rows_per_block = kLanesThreads >> a.lanes_log2, chunks = a.columns / kWidth;
  const int thread = static_cast<int>(threadIdx.x), lane = thread & (lanes - 1), own_row = thread >> a.lanes_log2;
  release_dependents();
  const int64_t step = a.parts * rows_per_block, first = static_cast<int64_t>(blockIdx.x) * rows_per_block;
  // With parameters per group, step is a multiple of their number: a group of lanes meets one group's rows only.
  const uint32_t group =
      a.parameter_groups == 1 ? 0 : static_cast<uint32_t>((first + own_row) % a.parameter_groups);

  float weight[kVectors][kWidth];
  float dweight[Form::kSums > 0 ? kVectors : 1][kWidth] = {}, dbias[Form::kSums > 1 ? kVectors : 1][kWidth] = {};
  FLA_UNROLL
  for (int i = 0; i < kVectors; ++i) {
    const int chunk = lane + i * lanes;
    if constexpr (Form::kSums == 0) {
      FLA_UNROLL
      for (int e = 0; e < kWidth; ++e) weight[i][e] = 1.0f;
    } else if (chunk < chunks) {
      load_weight(a, group * a.weight_stride + chunk * kWidth, weight[i]);
    }
  }

  auto work = [&](const Row& held, int64_t row) {
    float means[2] = {}, means_of_s[2] = {};
    FLA_UNROLL
    for (int i = 0; i < kVectors; ++i) {
      if (lane + i * lanes < chunks) {
        float u[kWidth], dy[kWidth], gate[kWidth];
        unpack(held.u[i], u);
        unpack(held.dy[i], dy);
        if constexpr (Form::kGated) unpack(held.third[i], gate);
        to_terms<Form>(a, held.statistic, gate, true, u, dy);
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
    if (row >= a.grid.rows) return;
    const RowOffsets<kFlat> to(a, row, group);
    FLA_UNROLL
    for (int i = 0; i < kVectors; ++i) {
      const int chunk = lane + i * lanes;
      if (chunk < chunks) {
        float u[kWidth], dy[kWidth], third[kWidth];
        unpack(held.u[i], u);
        unpack(held.dy[i], dy);
        unpack(held.third[i], third);
        const bool with_carried = !Form::kGated && a.dresidual_out.data.data;
        write_gradients<Form, U, Y>(a, held.statistic, mean, u, dy, third, true, third, with_carried, weight[i], to,
                                    chunk * kWidth);
      }
    }
  };

  Row now;
  now.read(a, first + own_row, lane, lanes, chunks);
  if constexpr (Form::kSums == 0) {
    work(now, first + own_row);
  } else {
    // The next row arrives while this one is worked on. All lanes of the block take the same number of turns, so that
    // every shuffle has its whole warp.
    for (int64_t base = first; base < a.grid.rows; base += step) {
      const int64_t row = base + own_row;
      Row next;
      next.read(a, row + step, lane, lanes, chunks);
      work(now, row);
      now = next;
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
  const Launch shape{.grid = a.parts,
                     .block = kLanesThreads,
                     .shared_bytes = static_cast<size_t>(slots * a.columns) * sizeof(float),
                     .stream = stream};
  auto go = [&](auto form, auto flat) {
    using Form = decltype(form);
    constexpr bool kFlat = decltype(flat)::value;
    if constexpr (Form::kCentred || Form::kGated) {
      if (plan.vectors == 1) return launch<&row_norm_backward_lanes_kernel<U, Y, 1, Form, kFlat>>(shape, a);
    }
    if constexpr (!Form::kGated) {
      if (plan.vectors == 4) return launch<&row_norm_backward_lanes_kernel<U, Y, 4, Form, kFlat>>(shape, a);
    }
    return launch<&row_norm_backward_lanes_kernel<U, Y, 2, Form, kFlat>>(shape, a);
  };
  // A division per row hides behind a gate's arithmetic, but not behind that of a plain norm.
  if constexpr (std::is_same_v<U, Y>) {
    if (a.gate.data) {
      if (a.centred) return go(BackwardForm<2, true, true, sizeof(U) == 2>{}, std::false_type{});
      return sums > 1 ? go(BackwardForm<2, false, true, sizeof(U) == 2>{}, std::false_type{})
                      : go(BackwardForm<1, false, true, sizeof(U) == 2>{}, std::false_type{});
    }
  }
  auto plain = [&](auto flat) {
    if (a.centred) return go(BackwardForm<2, true, false>{}, flat);
    return sums > 1   ? go(BackwardForm<2, false, false>{}, flat)
           : sums > 0 ? go(BackwardForm<1, false, false>{}, flat)
                      : go(BackwardForm<0, false, false>{}, flat);
  };
  return a.grid.groups == 1 ? plain(std::true_type{}) : plain(std::false_type{});
}

}  // namespace fla::detail
