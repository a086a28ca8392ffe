// The largest logit of every token: one block a row, read once (2 bytes a logit in 16 bits; three instructions a logit, of 15
// that the bandwidth leaves); and its gradient, one thread a token.
#include "fla/l2_warp.h"

#include "common/dispatch.h"
#include "common/elementwise.cuh"
#include "common/workspace.h"
#include "fla/validate.h"
#include "loss/l2_warp.cuh"

namespace fla {
namespace {

using namespace detail;

constexpr int kThreads = 256, kWarps = kThreads / kWarp;

// A logit or, while a row is read, the largest of a batch of vectors and the first of these.
struct Peak {
  float value = -INFINITY;
  int32_t at = INT32_MAX;  // of no logit

  FLA_DEVICE bool gives_way_to(const Peak& o) const {
    const bool mine_is_nan = value != value, other_is_nan = o.value != o.value;
    if (mine_is_nan != other_is_nan) return other_is_nan;
    if (!mine_is_nan && value != o.value) return value < o.value;
    return o.at < at;
  }
  FLA_DEVICE void meet(const Peak& o) {
    if (gives_way_to(o)) *this = o;
  }
  FLA_DEVICE bool is_as_high_as(float other) const { return value == other || (value != value && other != other); }
};

struct PeakArgs {
  const void* logits = nullptr;
  int64_t logits_stride = 0;
  RowPeaks peaks;
  int32_t columns = 0, first_class = 0;
};

struct PeakShared {
  Peak of_batches[kWarps], of_logits[kWarps];
};

// One block barrier; every thread gets the block's peak.
FLA_DEVICE Peak block_peak(Peak peak, Peak* slots) {
  const int thread = static_cast<int>(threadIdx.x);
  FLA_UNROLL
  for (int step = kWarp / 2; step > 0; step /= 2) {
    Peak other;
    other.value = shuffle_xor(peak.value, step);
    other.at = shuffle_xor(peak.at, step);
    peak.meet(other);
  }
  if (thread % kWarp == 0) slots[thread / kWarp] = peak;
  block_barrier();
  peak = slots[0];
  FLA_UNROLL
  for (int w = 1; w < kWarps; ++w) peak.meet(slots[w]);
  return peak;
}

// The column is no part of the running maximum: a branch for each new one costs more than the row's bandwidth leaves, since
// of 32 lanes one nearly always has one. The few threads that saw the row's peak look for it once more, in one batch.
template <class T>
FLA_KERNEL void FLA_BOUNDS(kThreads, 6) peak_kernel(FLA_PARAMETERS PeakArgs a) {
  wait_for_predecessor();
  auto* shared = shared_memory<PeakShared>();
  const int thread = static_cast<int>(threadIdx.x);
  const T* row = static_cast<const T*>(a.logits) + blockIdx.x * a.logits_stride;
  const RowSpan<T> span(row, a.columns);
  constexpr int kWidth = RowSpan<T>::kWidth;
  // Four vectors are asked for before the first is looked at.
  constexpr int kBatch = 4;
  Peak batch;
  FLA_NO_UNROLL
  for (int first = thread; first < span.vectors; first += kBatch * kThreads) {
    Vector<T, kWidth> held[kBatch];
    FLA_UNROLL
    for (int i = 0; i < kBatch; ++i) {
      const int v = first + i * kThreads;
      held[i] = load<T, kWidth>(row + span.column(v < span.vectors ? v : first));
    }
    float top[kBatch];
    FLA_UNROLL
    for (int i = 0; i < kBatch; ++i) {
      float values[kWidth];
      unpack(held[i], values);
      top[i] = values[0];
      FLA_UNROLL
      for (int e = 1; e < kWidth; ++e) top[i] = math::max_with_nan(top[i], values[e]);
    }
    batch.meet({math::max_with_nan(math::max_with_nan(top[0], top[1]), math::max_with_nan(top[2], top[3])), first});
  }
  Peak scalar;
  if (const int column = span.scalar_column(thread, a.columns); column >= 0) scalar = {load_float(row + column), column};
  Peak either = batch;
  either.meet(scalar);
  const float top = block_peak(either, shared->of_batches).value;
  Peak peak;
  if (scalar.at != INT32_MAX && scalar.is_as_high_as(top)) peak.meet(scalar);
  if (batch.at != INT32_MAX && batch.is_as_high_as(top)) {
    FLA_NO_UNROLL
    for (int v = batch.at; v < span.vectors && v < batch.at + kBatch * kThreads; v += kThreads) {
      float values[kWidth];
      load_floats(row + span.column(v), values);
      FLA_UNROLL
      for (int e = 0; e < kWidth; ++e) peak.meet({values[e], span.column(v) + e});
    }
  }
  peak = block_peak(peak, shared->of_logits);
  if (thread != 0) return;
  peak.at += a.first_class;
  float* max = a.peaks.max + blockIdx.x * a.peaks.max_stride;
  int32_t* argmax = a.peaks.argmax + blockIdx.x * a.peaks.argmax_stride;
  if (a.first_class > 0) peak.meet({load_float(max), static_cast<int32_t>(load_index({argmax, DType::i32}, 0))});
  store_float(max, peak.value);
  store(argmax, Vector<int32_t, 1>{{static_cast<uint32_t>(peak.at)}});
}

// The element of the gradient that the penalty goes into, from the raw logit that `peaks` kept.
struct PenaltyArgs {
  LogitArgs rows;
  RowPeaks peaks;
  const float* factor = nullptr;
  DType dtype = DType::f32;
};

FLA_KERNEL void FLA_BOUNDS(kThreads, 4) penalty_kernel(FLA_PARAMETERS PenaltyArgs a) {
  const int64_t row = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (row >= a.rows.rows) return;
  const int64_t column = load_index({a.peaks.argmax, DType::i32}, row * a.peaks.argmax_stride) - a.rows.class_start;
  if (column < 0 || column >= a.rows.columns) return;
  const float max = load_float(a.peaks.max + row * a.peaks.max_stride);
  float gradient[1] = {max};
  const Label label = read_label(a.rows, row);
  if (label.state == LabelState::ignored || label.state == LabelState::invalid) {
    gradient[0] = 0.0f;
  } else {
    const float lse = load_float(a.rows.lse + row * a.rows.lse_stride);
    row_gradient<float, false>(a.rows, label, lse, upstream_factor(a.rows, row))
        .apply(a.rows, static_cast<int>(column), gradient);
  }
  store_float(AnyFloat{a.rows.dlogits, a.dtype}, row * a.rows.dlogits_stride + column,
              fmaf(load_float(a.factor), max, gradient[0]));
}

struct AddArgs {
  const float *max = nullptr, *dloss = nullptr;
  AnyIndex argmax;
  AnyFloat dlogits;
  int64_t max_stride = 0, argmax_stride = 0, dlogits_stride = 0, rows = 0, columns = 0;
  float factor = 0;
};

FLA_KERNEL void FLA_BOUNDS(kThreads, 4) add_kernel(FLA_PARAMETERS AddArgs a) {
  wait_for_predecessor();
  const int64_t row = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (row >= a.rows) return;
  const int64_t column = load_index(a.argmax, row * a.argmax_stride);
  if (column < 0 || column >= a.columns) return;
  const float g = a.factor * (a.dloss ? load_float(a.dloss) : 1.0f);
  const int64_t at = row * a.dlogits_stride + column;
  store_float(a.dlogits, at, fmaf(g, load_float(a.max + row * a.max_stride), load_float(a.dlogits, at)));
}

// Multiplies by a number that only the device knows.
struct Scaling {
  const float* factor;

  FLA_DEVICE bool changes_nothing() const { return load_float(factor) == 1.0f; }
  template <class Forms>
  FLA_DEVICE void operator()(Forms, const float (&in)[1], float (&out)[1]) const {
    out[0] = in[0] * load_float(factor);
  }
};

}  // namespace

Status detail::find_peaks(const Tensor& logits, const RowPeaks& peaks, int64_t first_class, Stream stream) {
  if (!peaks || logits.size[0] == 0) return {};
  const PeakArgs args{.logits = logits.data,
                      .logits_stride = logits.stride[0],
                      .peaks = peaks,
                      .columns = static_cast<int32_t>(logits.size[1]),
                      .first_class = static_cast<int32_t>(first_class)};
  return dispatch_float(logits.dtype, [&](auto tag) {
    return launch<&peak_kernel<typename decltype(tag)::type>>(
        {.grid = logits.size[0], .block = kThreads, .shared_bytes = sizeof(PeakShared), .stream = stream}, args);
  });
}

Status detail::add_peaks(const LogitArgs& rows, DType dtype, const RowPeaks& peaks, const float* factor, Stream stream) {
  if (rows.rows == 0) return {};
  return launch<&penalty_kernel>({.grid = divide_up(rows.rows, kThreads), .block = kThreads, .stream = stream},
                                 PenaltyArgs{rows, peaks, factor, dtype});
}

Status check(const L2WarpForward& a) {
  const int64_t columns = a.logits.size[1];
  if (columns >= 1 && columns <= 0x7fffffff - 65536) return {};
  return error(StatusCode::unsupported_shape, columns < 1 ? "logits: V = 0 classes" : "logits: 2^31 classes");
}

Status run(const L2WarpForward& a, Workspace, Stream stream) {
  if (Status s = validate(a); !s.ok()) return s;
  return find_peaks(a.logits,
                    {static_cast<float*>(a.max.data), static_cast<int32_t*>(a.argmax.data), a.max.stride[0],
                     a.argmax.stride[0]},
                    0, stream);
}

Status check(const L2WarpAdd&) { return {}; }

Status run(const L2WarpAdd& a, Workspace, Stream stream) {
  if (Status s = validate(a); !s.ok()) return s;
  const int64_t rows = a.dlogits.size[0];
  if (rows == 0) return {};
  const auto tokens = static_cast<double>(a.num_tokens > 0 ? a.num_tokens : rows);
  const AddArgs args{.max = static_cast<const float*>(a.max.data),
                     .dloss = static_cast<const float*>(a.dloss.data),
                     .argmax = any_index(a.argmax),
                     .dlogits = any_float(a.dlogits),
                     .max_stride = a.max.stride[0],
                     .argmax_stride = a.argmax.stride[0],
                     .dlogits_stride = a.dlogits.stride[0],
                     .rows = rows,
                     .columns = a.dlogits.size[1],
                     .factor = static_cast<float>(static_cast<double>(a.factor) / tokens)};
  return launch<&add_kernel>({.grid = divide_up(rows, kThreads), .block = kThreads, .stream = stream}, args);
}

Status run(const ScaleInplace& a, Workspace, Stream stream) {
  if (Status s = validate(a); !s.ok()) return s;
  return elementwise(Scaling{static_cast<const float*>(a.factor.data)}, {&a.x}, {&a.x}, stream);
}

}  // namespace fla
