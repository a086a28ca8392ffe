// RMS norm, backward, rows of up to 2 KB: several lanes or a warp per row, several rows per block, persistent blocks.
//
// The next row's operands are loaded into registers before the current row is reduced (rows this short make bulk copies
// too small to issue fast enough: 3127-3965 against 4063-4192 GB/s on an H200). Each group of lanes keeps its columns'
// sums in registers; at the end the block adds them up in shared memory, in order.
#include "norm/rms_norm_backward.cuh"

namespace fla::detail {
namespace {

inline constexpr int kThreads = 256;

// One row's operands as one lane holds them.
template <class U, class Y, int kVectors, bool kFlat>
struct LaneRow {
  static constexpr int kWidth = 16 / (sizeof(U) > sizeof(Y) ? sizeof(U) : sizeof(Y));
  Vector<U, kWidth> u[kVectors], carried[kVectors];
  Vector<Y, kWidth> dy[kVectors];
  float rstd = 0.0f;

  FLA_DEVICE void read(const BackwardArgs& a, int64_t row, int lane, int lanes, int chunks) {
    const bool mine = row < a.grid.rows;
    const int64_t at = mine ? row : 0;
    const U* pu = static_cast<const U*>(a.u.data.data) + a.grid.offset<kFlat>(at, a.u);
    const Y* pdy = static_cast<const Y*>(a.dy.data.data) + a.grid.offset<kFlat>(at, a.dy);
    const U* pres = static_cast<const U*>(a.dresidual_out.data.data) + a.grid.offset<kFlat>(at, a.dresidual_out);
    FLA_UNROLL
    for (int i = 0; i < kVectors; ++i) {
      const int chunk = lane + i * lanes;
      const bool inside = mine && chunk < chunks;
      u[i] = inside ? load<U, kWidth>(pu + chunk * kWidth) : zero_vector<U, kWidth>();
      dy[i] = inside ? load<Y, kWidth>(pdy + chunk * kWidth) : zero_vector<Y, kWidth>();
      if (a.dresidual_out.data)
        carried[i] = inside ? load<U, kWidth>(pres + chunk * kWidth) : zero_vector<U, kWidth>();
    }
    rstd = mine ? load_float(static_cast<const float*>(a.rstd.data.data) + a.grid.offset<kFlat>(at, a.rstd)) : 0.0f;
  }
};

// Adds up the lane groups' sums, laid out [group][columns] in shared memory, and stores one row of partial sums.
FLA_DEVICE void store_block_sums(const BackwardArgs& a, const float* sums, float* partials) {
  if (!partials) return;
  const int groups = kThreads >> a.lanes_log2;
  for (int column = static_cast<int>(threadIdx.x); column < a.columns; column += kThreads) {
    float sum = sums[column];
    for (int g = 1; g < groups; ++g) sum += sums[g * a.columns + column];
    store_float(partials + static_cast<int64_t>(blockIdx.x) * a.partial_stride + column, sum);
  }
}

template <class U, class Y, int kVectors, bool kBias, bool kFlat>
FLA_KERNEL void FLA_BOUNDS(kThreads, kVectors == 2 ? 2 : 1) lanes_kernel(FLA_PARAMETERS BackwardArgs a) {
  using Row = LaneRow<U, Y, kVectors, kFlat>;
  constexpr int kWidth = Row::kWidth;
  const int lanes = 1 << a.lanes_log2, rows_per_block = kThreads >> a.lanes_log2, chunks = a.columns / kWidth;
  const int thread = static_cast<int>(threadIdx.x), lane = thread & (lanes - 1), own_row = thread >> a.lanes_log2;
  const int64_t step = a.parts * rows_per_block;

  float weight[kVectors][kWidth], dweight[kVectors][kWidth] = {}, dbias[kBias ? kVectors : 1][kWidth] = {};
  FLA_UNROLL
  for (int i = 0; i < kVectors; ++i) {
    const int chunk = lane + i * lanes;
    if (chunk < chunks) load_weight(a, chunk * kWidth, weight[i]);
  }

  auto work = [&](const Row& held, int64_t row) {
    float means[2] = {};
    FLA_UNROLL
    for (int i = 0; i < kVectors; ++i) {
      if (lane + i * lanes < chunks) {
        float u[kWidth], dy[kWidth];
        unpack(held.u[i], u);
        unpack(held.dy[i], dy);
        FLA_UNROLL
        for (int e = 0; e < kWidth; ++e) {
          const float xhat = u[e] * held.rstd;
          dweight[i][e] = fmaf(dy[e], xhat, dweight[i][e]);
          if constexpr (kBias) dbias[i][e] += dy[e];
          means[e % 2] = fmaf(xhat, dy[e] * weight[i][e], means[e % 2]);
        }
      }
    }
    const float mean = warp_sum(means[0] + means[1], lanes) * a.inverse_columns;
    if (row >= a.grid.rows) return;
    const RowOffsets<kFlat> to(a, row);
    FLA_UNROLL
    for (int i = 0; i < kVectors; ++i) {
      const int chunk = lane + i * lanes, column = chunk * kWidth;
      if (chunk < chunks) {
        float xhat[kWidth], s[kWidth], du[kWidth];
        unpack(held.u[i], xhat);
        unpack(held.dy[i], s);
        FLA_UNROLL
        for (int e = 0; e < kWidth; ++e) {
          xhat[e] *= held.rstd;
          s[e] *= weight[i][e];
        }
        input_gradient(xhat, s, held.rstd, mean, du);
        if (a.dresidual_out.data) {
          float carried[kWidth];
          unpack(held.carried[i], carried);
          FLA_UNROLL
          for (int e = 0; e < kWidth; ++e) du[e] += carried[e];
        }
        if (a.dx.data) store_floats(static_cast<Y*>(a.dx.data.data) + to.dx + column, du);
        if (a.dresidual.data) store_floats(static_cast<U*>(a.dresidual.data.data) + to.dresidual + column, du);
        if (a.y.data) write_recomputed(a, xhat, weight[i], to.y, column);
      }
    }
  };

  // The next row arrives while this one is worked on. All lanes of the block take the same number of turns, so that
  // every shuffle has its whole warp.
  Row now;
  const int64_t first = static_cast<int64_t>(blockIdx.x) * rows_per_block;
  now.read(a, first + own_row, lane, lanes, chunks);
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
  if constexpr (kBias) reduce(dbias, a.dbias_partials);
}

}  // namespace

template <class U, class Y>
Status rms_norm_backward_lanes(BackwardArgs a, const BackwardPlan& plan, bool with_bias, Stream stream) {
  a.lanes_log2 = plan.lanes_log2;
  const Launch shape{.grid = plan.parts,
                     .block = kThreads,
                     .shared_bytes = static_cast<size_t>(kThreads >> plan.lanes_log2) * static_cast<size_t>(a.columns) * sizeof(float),
                     .stream = stream};
  auto launch_flat = [&](auto flat) {
    constexpr bool kFlat = decltype(flat)::value;
    if (plan.vectors == 2)
      return with_bias ? launch<&lanes_kernel<U, Y, 2, true, kFlat>>(shape, a) : launch<&lanes_kernel<U, Y, 2, false, kFlat>>(shape, a);
    return with_bias ? launch<&lanes_kernel<U, Y, 4, true, kFlat>>(shape, a) : launch<&lanes_kernel<U, Y, 4, false, kFlat>>(shape, a);
  };
  return a.grid.groups == 1 ? launch_flat(std::true_type{}) : launch_flat(std::false_type{});
}

template Status rms_norm_backward_lanes<float, float>(BackwardArgs, const BackwardPlan&, bool, Stream);
template Status rms_norm_backward_lanes<f16, f16>(BackwardArgs, const BackwardPlan&, bool, Stream);
template Status rms_norm_backward_lanes<bf16, bf16>(BackwardArgs, const BackwardPlan&, bool, Stream);
template Status rms_norm_backward_lanes<float, bf16>(BackwardArgs, const BackwardPlan&, bool, Stream);

}  // namespace fla::detail
