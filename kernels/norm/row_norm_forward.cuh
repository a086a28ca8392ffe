// RMS norm, forward. Two streams (four with a residual), every element read and written once: a row stays in registers
// between its statistic and its output, the end of a row longer than 32 KB in shared memory, fetched by one bulk copy
// while the registers fill. Rows that fit neither, or whose addresses allow no vectors, are read twice.
#include "fla/norm.h"

#include "common/alignment.h"
#include "common/dispatch.h"
#include "common/launch.h"
#include "common/math.cuh"
#include "common/ptx.cuh"
#include "common/row_reduce.cuh"
#include "common/workspace.h"
#include "fla/validate.h"
#include "norm/row_operand.cuh"
#include "norm/row_plan.h"

namespace fla {
namespace {

using namespace detail;

struct ForwardArgs {
  RowGrid grid;
  RowOperand x, residual, y, residual_out, rstd;
  AnyFloat weight, bias;
  int64_t weight_stride = 0, bias_stride = 0;  // per group; 0: shared
  int32_t columns = 0;
  int32_t lanes_log2 = 5;       // threads per row, unit lanes
  int32_t shared_vectors = 0;   // vectors at the end of the row that stay in shared memory
  float eps = 0, inverse_columns = 0;
};

struct NoResidual {};

// What a call may leave out, so that its kernel needs few enough registers for full occupancy: neither bias nor a
// separate sum, rows evenly spaced.
enum class Extras { none, some };

template <Extras kExtras>
FLA_DEVICE int64_t row_offset(const ForwardArgs& a, int64_t row, const RowOperand& operand) {
  return a.grid.offset<kExtras == Extras::none>(row, operand);
}

// One row as one thread sees it: `kVectors` vectors of kWidth elements, `step` vectors apart.
template <class T, class R, int kVectors>
struct RowInRegisters {
  static constexpr int kWidth = 16 / sizeof(T);
  static constexpr bool kSum = !std::is_same_v<R, NoResidual>;
  // Without a residual the row stays packed; the unrounded sum x + residual has to be kept in fp32.
  using Held = std::conditional_t<kSum, Vector<float, kWidth>, Vector<T, kWidth>>;
  Held held[kVectors];

  // Vectors at or past `end` count as zero.
  template <Extras kExtras>
  FLA_DEVICE void read(const ForwardArgs& a, int64_t row, int first, int step, int end) {
    const T* x = static_cast<const T*>(a.x.data.data) + row_offset<kExtras>(a, row, a.x);
    if constexpr (!kSum) {
      FLA_UNROLL
      for (int i = 0; i < kVectors; ++i) {
        const int vector = first + i * step;
        held[i] = vector < end ? load<T, kWidth>(x + vector * kWidth) : zero_vector<T, kWidth>();
      }
    } else {
      const R* r = static_cast<const R*>(a.residual.data.data) + a.grid.offset(row, a.residual);
      Vector<T, kWidth> vx[kVectors];
      Vector<R, kWidth> vr[kVectors];
      FLA_UNROLL
      for (int i = 0; i < kVectors; ++i) {
        const int vector = first + i * step;
        vx[i] = vector < end ? load<T, kWidth>(x + vector * kWidth) : zero_vector<T, kWidth>();
        vr[i] = vector < end ? load<R, kWidth>(r + vector * kWidth) : zero_vector<R, kWidth>();
      }
      FLA_UNROLL
      for (int i = 0; i < kVectors; ++i) {
        float u[kWidth], added[kWidth];
        unpack(vx[i], u);
        unpack(vr[i], added);
        FLA_UNROLL
        for (int e = 0; e < kWidth; ++e) u[e] += added[e];
        held[i] = pack<float, kWidth>(u);
      }
    }
  }

  FLA_DEVICE float sum_of_squares() const {
    float sums[2] = {};  // two chains, so that half the additions wait for none
    FLA_UNROLL
    for (int i = 0; i < kVectors; ++i) {
      float u[kWidth];
      unpack(held[i], u);
      FLA_UNROLL
      for (int e = 0; e < kWidth; ++e) sums[e % 2] = fmaf(u[e], u[e], sums[e % 2]);
    }
    return sums[0] + sums[1];
  }
};

// The weights of the same vectors, still packed. They are fetched beside the row, not after its reduction: a trip to L2
// between the two would cost as much as the row itself when there are few rows.
template <class W, int kWidth, int kVectors>
struct HeldWeight {
  Vector<W, kWidth> held[kVectors];

  FLA_DEVICE void read(const ForwardArgs& a, uint32_t group, int first, int step, int end) {
    if (!a.weight) return;
    const W* w = static_cast<const W*>(a.weight.data) + group * a.weight_stride;
    FLA_UNROLL
    for (int i = 0; i < kVectors; ++i) {
      const int vector = first + i * step;
      if (vector < end) held[i] = load<W, kWidth>(w + vector * kWidth);
    }
  }
};

template <int kWidth>
FLA_DEVICE void load_weight(const ForwardArgs& a, int64_t index, float (&w)[kWidth]) {
  if (a.weight) {
    load_floats(a.weight, index, w);
  } else {
    FLA_UNROLL
    for (int e = 0; e < kWidth; ++e) w[e] = 1.0f;
  }
}

// Writes y (and the stored sum) of one vector of a row.
template <class T, Extras kExtras, int kWidth>
FLA_DEVICE void write_vector(const ForwardArgs& a, float (&u)[kWidth], const float (&w)[kWidth], float rstd,
                             int64_t y_offset, int64_t sum_offset, int64_t bias_base, int column) {
  if (kExtras == Extras::some && a.residual_out.data) store_floats(a.residual_out.data, sum_offset + column, u);
  FLA_UNROLL
  for (int e = 0; e < kWidth; ++e) u[e] = u[e] * rstd * w[e];
  if (kExtras == Extras::some && a.bias) {
    float b[kWidth];
    load_floats(a.bias, bias_base + column, b);
    FLA_UNROLL
    for (int e = 0; e < kWidth; ++e) u[e] += b[e];
  }
  store_floats(static_cast<T*>(a.y.data.data) + y_offset + column, u);
}

template <Extras kExtras, class T, class R, class W, int kWidth, int kVectors>
FLA_DEVICE void write_row(const ForwardArgs& a, const RowInRegisters<T, R, kVectors>& held,
                          const HeldWeight<W, kWidth, kVectors>* weight, int64_t row, float rstd, int first, int step,
                          int end) {
  const int64_t y_offset = row_offset<kExtras>(a, row, a.y);
  const int64_t sum_offset = kExtras == Extras::none ? 0 : a.grid.offset(row, a.residual_out);
  const uint32_t group = kExtras == Extras::none ? 0 : a.grid.group(row);
  FLA_UNROLL
  for (int i = 0; i < kVectors; ++i) {
    const int vector = first + i * step;
    if (vector < end) {
      float u[kWidth], w[kWidth];
      unpack(held.held[i], u);
      if (weight && a.weight) unpack(weight->held[i], w);
      else load_weight(a, group * a.weight_stride + vector * kWidth, w);
      write_vector<T, kExtras>(a, u, w, rstd, y_offset, sum_offset, group * a.bias_stride, vector * kWidth);
    }
  }
}

FLA_DEVICE void store_statistic(const ForwardArgs& a, int64_t row, float rstd) {
  if (a.rstd.data) store_float(static_cast<float*>(a.rstd.data.data) + a.grid.offset(row, a.rstd), rstd);
}

// Short rows: several lanes share a row, several rows share a warp. Lanes beyond the last row work on it again
// without storing, so that every lane reaches the shuffles.
template <class T, class R, class W, int kVectors, Extras kExtras>
FLA_KERNEL void FLA_BOUNDS(128, kVectors == 1 ? 11 : 8) rms_norm_forward_lanes(FLA_PARAMETERS ForwardArgs a) {
  constexpr int kWidth = 16 / sizeof(T);
  wait_for_predecessor();
  const int lanes = 1 << a.lanes_log2, vectors = a.columns / kWidth;
  const int thread = static_cast<int>(threadIdx.x), lane = thread & (lanes - 1);
  const int64_t wanted = (static_cast<int64_t>(blockIdx.x) * 128 + thread) >> a.lanes_log2;
  const bool mine = wanted < a.grid.rows;
  const int64_t row = mine ? wanted : a.grid.rows - 1;
  RowInRegisters<T, R, kVectors> held;
  HeldWeight<W, kWidth, kVectors> weight;
  held.template read<kExtras>(a, row, lane, lanes, vectors);
  weight.read(a, kExtras == Extras::none ? 0 : a.grid.group(row), lane, lanes, vectors);
  const float sum = warp_sum(held.sum_of_squares(), lanes);
  const float rstd = math::rsqrt(fmaf(sum, a.inverse_columns, a.eps));
  write_row<kExtras>(a, held, &weight, row, rstd, lane, lanes, mine ? vectors : 0);
  if (mine && lane == 0) store_statistic(a, row, rstd);
}

struct BlockShared {
  BlockSlots<1> slots;
  TransactionBarrier barrier;
};

// One block per row; the first kVectors * blockDim vectors in registers, the rest (if any) in shared memory.
template <class T, class R, class W, int kVectors, Extras kExtras>
FLA_KERNEL void FLA_BOUNDS(512, kVectors > 2 || kExtras == Extras::some ? 2 : kVectors == 1 ? 4 : sizeof(W) == 2 ? 3 : 2) rms_norm_forward_block(FLA_PARAMETERS ForwardArgs a) {
  constexpr int kWidth = 16 / sizeof(T);
  constexpr bool kHoldWeight = kVectors <= 2;
  wait_for_predecessor();
  using Row = RowInRegisters<T, R, kVectors>;
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
  held.template read<kExtras>(a, row, thread, threads, kept);
  if constexpr (kHoldWeight) weight.read(a, kExtras == Extras::none ? 0 : a.grid.group(row), thread, threads, kept);
  float sum = held.sum_of_squares();
  if constexpr (!Row::kSum && kVectors > 2) {
    if (a.shared_vectors > 0) {
      block_barrier();  // the transaction barrier is initialised
      barrier_wait(&control->barrier, 0);
      for (int v = thread; v < a.shared_vectors; v += threads) {
        float u[kWidth];
        load_floats(reinterpret_cast<const T*>(shared) + v * kWidth, u);
        FLA_UNROLL
        for (int e = 0; e < kWidth; ++e) sum = fmaf(u[e], u[e], sum);
      }
    }
  }
  sum = block_sum(sum, control->slots);
  const float rstd = math::rsqrt(fmaf(sum, a.inverse_columns, a.eps));
  if (thread == 0) store_statistic(a, row, rstd);
  write_row<kExtras>(a, held, kHoldWeight ? &weight : nullptr, row, rstd, thread, threads, kept);
  if constexpr (!Row::kSum && kVectors > 2) {
    const int64_t y_offset = a.grid.offset(row, a.y), sum_offset = a.grid.offset(row, a.residual_out);
    const uint32_t group = a.grid.group(row);
    FLA_UNROLL_BY(4)
    for (int v = thread; v < a.shared_vectors; v += threads) {
      float u[kWidth], w[kWidth];
      load_floats(reinterpret_cast<const T*>(shared) + v * kWidth, u);
      load_weight(a, group * a.weight_stride + (kept + v) * kWidth, w);
      write_vector<T, kExtras>(a, u, w, rstd, y_offset, sum_offset, group * a.bias_stride, (kept + v) * kWidth);
    }
  }
}

template <int kWidth>
FLA_DEVICE void read_sum(const ForwardArgs& a, int64_t x_offset, int64_t residual_offset, int column,
                         float (&u)[kWidth]) {
  load_floats(a.x.data, x_offset + column, u);
  if (a.residual.data) {
    float added[kWidth];
    load_floats(a.residual.data, residual_offset + column, added);
    FLA_UNROLL
    for (int e = 0; e < kWidth; ++e) u[e] += added[e];
  }
}

// Any dtypes, any alignment, any length: the row is read twice. Each thread overwrites only what it read itself, so the
// in-place forms hold here too.
template <int kWidth>
FLA_KERNEL void FLA_BOUNDS(512, 2) rms_norm_forward_streamed(FLA_PARAMETERS ForwardArgs a) {
  wait_for_predecessor();
  auto* slots = shared_memory<BlockSlots<1>>();
  const int first = static_cast<int>(threadIdx.x) * kWidth, step = static_cast<int>(blockDim.x) * kWidth;
  const int64_t row = blockIdx.x;
  const int64_t x_offset = a.grid.offset(row, a.x), residual_offset = a.grid.offset(row, a.residual);
  float sum = 0.0f;
  FLA_UNROLL_BY(2)
  for (int column = first; column < a.columns; column += step) {
    float u[kWidth];
    read_sum(a, x_offset, residual_offset, column, u);
    FLA_UNROLL
    for (int e = 0; e < kWidth; ++e) sum = fmaf(u[e], u[e], sum);
  }
  sum = block_sum(sum, *slots);
  const float rstd = math::rsqrt(fmaf(sum, a.inverse_columns, a.eps));
  if (threadIdx.x == 0) store_statistic(a, row, rstd);
  const int64_t y_offset = a.grid.offset(row, a.y), sum_offset = a.grid.offset(row, a.residual_out);
  const int64_t weight_base = a.grid.group(row) * a.weight_stride, bias_base = a.grid.group(row) * a.bias_stride;
  for (int column = first; column < a.columns; column += step) {
    float u[kWidth], w[kWidth];
    read_sum(a, x_offset, residual_offset, column, u);
    load_weight(a, weight_base + column, w);
    if (a.y.data.dtype == DType::f32) write_vector<float, Extras::some>(a, u, w, rstd, y_offset, sum_offset, bias_base, column);
    else if (a.y.data.dtype == DType::bf16) write_vector<bf16, Extras::some>(a, u, w, rstd, y_offset, sum_offset, bias_base, column);
    else write_vector<f16, Extras::some>(a, u, w, rstd, y_offset, sum_offset, bias_base, column);
  }
}

// Below this many bytes a launch is latency: the next kernel may then be set up while this one runs.
constexpr int64_t kDependentBytes = 4 << 20;

template <class T, class R, class W, Extras kExtras>
Status launch_planned(ForwardArgs& a, const RowPlan& plan, Stream stream) {
  const bool dependent = a.grid.rows * a.columns * static_cast<int64_t>(sizeof(T)) < kDependentBytes;
  if (plan.unit == RowUnit::lanes) {
    a.lanes_log2 = plan.lanes_log2;
    const Launch shape{
        .grid = divide_up(a.grid.rows << plan.lanes_log2, 128), .block = 128, .stream = stream, .dependent = dependent};
    return plan.vectors == 1 ? launch<&rms_norm_forward_lanes<T, R, W, 1, kExtras>>(shape, a)
                             : launch<&rms_norm_forward_lanes<T, R, W, 2, kExtras>>(shape, a);
  }
  a.shared_vectors = static_cast<int32_t>(plan.shared_vectors);
  const Launch shape{.grid = a.grid.rows,
                     .block = plan.threads,
                     .shared_bytes = static_cast<size_t>(plan.shared_vectors) * 16 + sizeof(BlockShared),
                     .stream = stream,
                     .dependent = dependent};
  if (plan.vectors == 1) return launch<&rms_norm_forward_block<T, R, W, 1, kExtras>>(shape, a);
  if (plan.vectors == 2) return launch<&rms_norm_forward_block<T, R, W, 2, kExtras>>(shape, a);
  return launch<&rms_norm_forward_block<T, R, W, 4, kExtras>>(shape, a);
}

template <class T, class W>
Status launch_with_residual(ForwardArgs& a, const RowPlan& plan, Stream stream) {
  if (a.residual.data)
    return a.residual.data.dtype == DType::f32 ? launch_planned<T, float, W, Extras::some>(a, plan, stream)
                                               : launch_planned<T, T, W, Extras::some>(a, plan, stream);
  if (a.bias || a.residual_out.data || a.grid.groups != 1)
    return launch_planned<T, NoResidual, W, Extras::some>(a, plan, stream);
  return launch_planned<T, NoResidual, W, Extras::none>(a, plan, stream);
}

Status launch_streamed(const ForwardArgs& a, bool aligned, Stream stream) {
  const Launch shape{.grid = a.grid.rows,
                     .block = a.columns > 2048 ? 512 : 128,
                     .shared_bytes = sizeof(BlockSlots<1>),
                     .stream = stream};
  if (aligned) return launch<&rms_norm_forward_streamed<8>>(shape, a);
  return launch<&rms_norm_forward_streamed<1>>(shape, a);
}

}  // namespace

Status check(const RmsNormForward& a) {
  const RowExtent extent = row_extent(a.x);
  if (extent.n < 1) return error(StatusCode::unsupported_shape, "x: rows of N = 0 elements");
  if (extent.n > 0x7fffffff - 65536) return error(StatusCode::unsupported_shape, "x: rows of 2^31 elements");
  if (a.residual_out && !a.residual && a.x.dtype == DType::f32)
    return error(StatusCode::unsupported_combination, "residual_out: without residual it would copy an f32 x");
  return {};
}

size_t workspace_bytes(const RmsNormForward&) { return 0; }

Status run(const RmsNormForward& in, Workspace, Stream stream) {
  if (Status s = validate(in); !s.ok()) return s;
  const RowExtent extent = row_extent(in.x);
  if (extent.m == 0 || extent.g == 0) return {};
  ForwardArgs a;
  a.x = row_operand(in.x);
  a.residual = row_operand(in.residual);
  a.y = row_operand(in.y);
  a.residual_out = row_operand(in.residual_out);
  a.rstd = row_operand(in.rstd, true);
  a.weight = any_float(in.weight);
  a.bias = any_float(in.bias);
  a.weight_stride = in.weight.rank == 2 ? in.weight.stride[0] : 0;
  a.bias_stride = in.bias.rank == 2 ? in.bias.stride[0] : 0;
  a.columns = static_cast<int32_t>(extent.n);
  a.eps = in.eps;
  a.inverse_columns = 1.0f / static_cast<float>(extent.n);
  a.grid = {extent.m * extent.g, static_cast<uint32_t>(extent.g)};
  const int64_t g = extent.g;
  if (g > 1 && a.weight_stride == 0 && a.bias_stride == 0 && groups_collapse(a.x, g) &&
      groups_collapse(a.residual, g) && groups_collapse(a.y, g) && groups_collapse(a.residual_out, g) &&
      groups_collapse(a.rstd, g)) {
    a.grid.groups = 1;
    for (RowOperand* operand : {&a.x, &a.residual, &a.y, &a.residual_out, &a.rstd}) collapse_groups(*operand);
  }
  const int64_t width = 16 / size_of(in.x.dtype);
  auto vectors_fit = [&](int64_t elements) {
    return extent.n % elements == 0 && all_rows_allow(elements, in.x, in.residual, in.weight, in.bias, in.y, in.residual_out);
  };
  const RowPlan plan = plan_row_forward(extent.n / width, static_cast<bool>(in.residual));
  auto known = [&](const Tensor& t) { return !t || t.dtype == DType::f32 || t.dtype == in.x.dtype; };
  if (plan.unit == RowUnit::streamed || !known(in.residual) || !known(in.weight) || !vectors_fit(width))
    return launch_streamed(a, vectors_fit(8), stream);
  return dispatch_float(in.x.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    if (a.weight && a.weight.dtype == DType::f32) return launch_with_residual<T, float>(a, plan, stream);
    return launch_with_residual<T, T>(a, plan, stream);
  });
}

}  // namespace fla
