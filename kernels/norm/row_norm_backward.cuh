// Row norms, backward: what its kernels share.
#pragma once

#include <type_traits>

#include "common/alignment.h"
#include "common/launch.h"
#include "common/ptx.cuh"
#include "common/row_reduce.cuh"
#include "norm/gate.cuh"
#include "norm/row_operand.cuh"
#include "norm/row_plan.h"

namespace fla::detail {

struct BackwardArgs {
  RowGrid grid;
  RowOperand u, gate, dy, dresidual_out, mean, rstd;  // u: the normalised rows as stored
  RowOperand dx, dgate, dresidual, y;                 // outputs, each may be absent
  AnyFloat weight, bias;
  int64_t weight_stride = 0, bias_stride = 0;         // per group
  float* dweight_partials = nullptr;                  // rows of `columns` sums, may be absent
  float* dbias_partials = nullptr;
  int64_t parts = 1;                                  // blocks that share the rows
  int32_t parameter_groups = 1;                       // row r has parameters r % parameter_groups
  int32_t columns = 0;
  int32_t lanes_log2 = 5;
  int32_t stages = 0;
  int32_t cluster = 1;                                // blocks that share a row, `slice` columns each
  int32_t slice = 0;
  float share = 0;                                    // of the row's sums in du: 1 / columns, or 1 for an l2 norm
  float weight_offset = 0;
  bool normalised = false;                            // u is xhat itself
  bool centred = false;                               // known to the fast forms; the streamed kernels ask
  bool gate_before = false, swish = true;
};

// What the fast forms are compiled for. Column sums: none (then there is no weight either), those of dweight, or of
// dweight and dbias.
template <int kColumnSums, bool kIsCentred, bool kIsGated, bool kGateIsShort = false>
struct BackwardForm {
  static constexpr int kSums = kColumnSums;
  static constexpr bool kCentred = kIsCentred, kGated = kIsGated, kShortGate = kGateIsShort;
};

struct StoredStatistic {
  float rstd = 0.0f, mean = 0.0f;
};

template <class Form>
FLA_DEVICE float to_xhat(const BackwardArgs& a, const StoredStatistic& s, float v) {
  // Only what has no parameters can be given its own output for u.
  const float slope = Form::kSums == 0 && a.normalised ? 1.0f : s.rstd;
  return (Form::kCentred ? v - s.mean : v) * slope;  // not v slope - mean slope: that loses rows that are nearly constant
}

// A gate's values and slopes between the two passes over a row, where there is room for them.
template <int kWidth, bool kKept>
struct KeptGate {
  float value[kKept ? kWidth : 1], slope[kKept ? kWidth : 1];
};

// xhat and dn of some elements, from u and dy in place.
template <class Form, int kWidth, bool kKept = false>
FLA_DEVICE void to_terms(const BackwardArgs& a, const StoredStatistic& s, const float (&gate)[kWidth], bool gated,
                         float (&u)[kWidth], float (&dy)[kWidth], KeptGate<kWidth, kKept>* kept = nullptr) {
  if (Form::kGated && gated) {
    auto pass = [&](float (&through)[kWidth]) {
      FLA_UNROLL
      for (int e = 0; e < kWidth; ++e) {
        if constexpr (kKept) {
          const GateTerms t = gate_terms<Form::kShortGate>(gate[e], a.swish);
          kept->value[e] = t.value;
          kept->slope[e] = t.slope;
          through[e] *= t.value;
        } else {
          through[e] *= gate_value<Form::kShortGate>(gate[e], a.swish);
        }
      }
    };
    if (a.gate_before) pass(u);
    else pass(dy);
  }
  FLA_UNROLL
  for (int e = 0; e < kWidth; ++e) u[e] = to_xhat<Form>(a, s, u[e]);
}

// The means over the row of s xhat and, where rows are centred, of s.
template <class Form>
struct RowMeans {
  static constexpr int kValues = Form::kCentred ? 2 : 1;
  float value[kValues];
};

// Writes through the pointer's known dtype, or through that of the operand (T void).
template <class T, int kWidth>
FLA_DEVICE void store_row(const RowOperand& operand, int64_t at, const float (&values)[kWidth]) {
  if constexpr (std::is_void_v<T>) store_floats(operand.data, at, values);
  else store_floats(static_cast<T*>(operand.data.data) + at, values);
}
template <class T, int kWidth>
FLA_DEVICE void load_row(const RowOperand& operand, int64_t at, float (&values)[kWidth]) {
  if constexpr (std::is_void_v<T>) load_floats(operand.data, at, values);
  else load_floats(static_cast<const T*>(operand.data.data) + at, values);
}

// One row. Offsets are worked out at each access: held, they would cost ten registers.
struct BackwardRow {
  RowAt at;
  uint32_t group = 0;  // of its parameters

  FLA_DEVICE int64_t in(const RowOperand& operand) const { return at.in(operand); }
  FLA_DEVICE int64_t bias(const BackwardArgs& a) const { return group * a.bias_stride; }
};

// y of some elements of a row, as forward wrote it.
template <class Form, int kWidth, bool kKept>
FLA_DEVICE void write_recomputed(const BackwardArgs& a, const StoredStatistic& stat, const float (&u)[kWidth],
                                 const float (&gate)[kWidth], bool gated, const KeptGate<kWidth, kKept>* kept,
                                 const float (&w)[kWidth], int64_t bias_at, int64_t y_at) {
  float y[kWidth], b[kWidth] = {};
  if (a.bias) load_floats(a.bias, bias_at, b);
  FLA_UNROLL
  for (int e = 0; e < kWidth; ++e) {
    float value = 1.0f;
    if constexpr (kKept) value = kept->value[e];
    else if (gated) value = gate_value<Form::kShortGate>(gate[e], a.swish);
    y[e] = to_xhat<Form>(a, stat, gated && a.gate_before ? u[e] * value : u[e]) * w[e] + b[e];
    if (gated && !a.gate_before) y[e] *= value;
  }
  store_floats(a.y.data, y_at, y);
}

// du of some elements, and dgate: the gate multiplies u (kBefore) or n = xhat w + b.
template <class Form, bool kBefore, int kWidth, bool kKept>
FLA_DEVICE void gated_gradients(const BackwardArgs& a, const StoredStatistic& stat, const RowMeans<Form>& means,
                                const float (&u)[kWidth], const float (&dy)[kWidth], const float (&gate)[kWidth],
                                const KeptGate<kWidth, kKept>* kept, const float (&w)[kWidth],
                                const float (&b)[kWidth], float (&du)[kWidth], float (&dgate)[kWidth]) {
  // Element by element, so that few numbers are alive at once.
  FLA_UNROLL
  for (int e = 0; e < kWidth; ++e) {
    GateTerms t;
    if constexpr (kKept) t = {kept->value[e], kept->slope[e]};
    else t = gate_terms<Form::kShortGate>(gate[e], a.swish);
    const float xhat = to_xhat<Form>(a, stat, kBefore ? u[e] * t.value : u[e]);
    const float dn = kBefore ? dy[e] : dy[e] * t.value;
    float dv = dn * w[e];
    if constexpr (Form::kCentred) dv -= means.value[RowMeans<Form>::kValues - 1];
    dv = fmaf(-xhat, means.value[0], dv) * stat.rstd;
    dgate[e] = (kBefore ? dv * u[e] : dy[e] * fmaf(xhat, w[e], b[e])) * t.slope;
    du[e] = kBefore ? dv * t.value : dv;
  }
}

// Every output of some elements of a row. `carried` is the gradient that residual_out brings, where `with_carried`; `bias` where
// it is at hand.
template <class Form, class U, class Y, int kWidth, bool kKept = false>
FLA_DEVICE void write_gradients(const BackwardArgs& a, const StoredStatistic& stat, const RowMeans<Form>& means,
                                const float (&u)[kWidth], const float (&dy)[kWidth], const float (&gate)[kWidth],
                                bool gated, const float (&carried)[kWidth], bool with_carried, const float (&w)[kWidth],
                                const BackwardRow& to, int column, const KeptGate<kWidth, kKept>* kept = nullptr,
                                const float (*bias)[kWidth] = nullptr) {
  gated = Form::kGated && gated;
  float du[kWidth], dgate[kWidth];
  if (gated) {
    float b[kWidth] = {};
    if (bias) {
      FLA_UNROLL
      for (int e = 0; e < kWidth; ++e) b[e] = (*bias)[e];
    } else if (a.bias) {
      load_floats(a.bias, to.bias(a) + column, b);
    }
    if (a.gate_before) gated_gradients<Form, true>(a, stat, means, u, dy, gate, kept, w, b, du, dgate);
    else gated_gradients<Form, false>(a, stat, means, u, dy, gate, kept, w, b, du, dgate);
  } else {
    // rstd (dy w - mean[1] - xhat mean[0]) with what the whole row shares taken out of xhat.
    const float slope = to_xhat<Form>(a, {stat.rstd, 0.0f}, -means.value[0]);
    FLA_UNROLL
    for (int e = 0; e < kWidth; ++e) {
      if constexpr (Form::kCentred)
        du[e] = fmaf(u[e] - stat.mean, slope, dy[e] * w[e] - means.value[RowMeans<Form>::kValues - 1]) * stat.rstd;
      else du[e] = fmaf(dy[e] * stat.rstd, w[e], u[e] * (slope * stat.rstd));
    }
  }
  if (with_carried) {
    FLA_UNROLL
    for (int e = 0; e < kWidth; ++e) du[e] += carried[e];
  }
  if (a.dx.data) store_row<Y>(a.dx, to.in(a.dx) + column, du);
  if (a.dresidual.data) store_row<U>(a.dresidual, to.in(a.dresidual) + column, du);
  if (gated && a.dgate.data) store_row<U>(a.dgate, to.in(a.dgate) + column, dgate);
  if (a.y.data) write_recomputed<Form>(a, stat, u, gate, gated, kept, w, to.bias(a) + column, to.in(a.y) + column);
}

// Plus the offset; one where there is no weight.
template <int kWidth>
FLA_DEVICE void load_weight(const BackwardArgs& a, int64_t index, float (&w)[kWidth]) {
  if (a.weight) {
    load_floats(a.weight, index, w);
    FLA_UNROLL
    for (int e = 0; e < kWidth; ++e) w[e] += a.weight_offset;
  } else {
    FLA_UNROLL
    for (int e = 0; e < kWidth; ++e) w[e] = 1.0f;
  }
}

FLA_DEVICE StoredStatistic load_statistic(const BackwardArgs& a, RowAt row, bool centred) {
  StoredStatistic s;
  s.rstd = load_float(static_cast<const float*>(a.rstd.data.data) + row.in(a.rstd));
  if (centred) s.mean = load_float(static_cast<const float*>(a.mean.data.data) + row.in(a.mean));
  return s;
}

// The ways to run a problem (row_norm_backward_*). U is the dtype of u, of the gate and of the gradients of residual and
// gate, Y that of dy, dx and y. `sums`: 0, 1 or 2 column sums are kept.
template <class U, class Y>
Status row_norm_backward_lanes(BackwardArgs a, const BackwardPlan& plan, int sums, Stream stream);
template <class U, class Y>
Status row_norm_backward_ring(BackwardArgs a, const BackwardPlan& plan, int sums, Stream stream);
// The column sums alone, of any dtypes and alignment; `vectors_of_8` when every row of every operand allows them.
Status row_norm_backward_columns(BackwardArgs a, bool vectors_of_8, Stream stream);
// The row gradients alone, likewise.
Status row_norm_backward_rows(const BackwardArgs& a, bool vectors_of_8, Stream stream);

}  // namespace fla::detail
