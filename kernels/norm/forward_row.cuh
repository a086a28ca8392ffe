// A row as the forward kernels hold it, and what they write of it (row_norm_forward.cuh).
#pragma once

#include <type_traits>

#include "common/dispatch.h"
#include "common/vector.cuh"
#include "norm/gate.cuh"
#include "norm/row_operand.cuh"

namespace fla::detail {

struct ForwardArgs {
  RowGrid grid;
  RowOperand x, second, gate, y, residual_out, mean, rstd;  // second: what joins x before the statistic
  AnyFloat weight, bias;
  int64_t weight_stride = 0, bias_stride = 0;  // per group; 0: shared
  int32_t columns = 0;
  int32_t lanes_log2 = 5;       // threads per row, unit lanes
  uint32_t turns = 1;           // rows that each of them takes, one below the other
  uint32_t height = 0;          // rows of a group
  int32_t shared_vectors = 0;   // vectors at the end of the row that stay in shared memory
  float eps = 0;
  float weight_offset = 0;      // nothing where there is no weight
  float share = 0;              // of the sum in the statistic: 1 / columns, or 1 for an l2 norm
  bool centred = false;         // known to the forms below; the streamed kernel asks
  bool second_is_gate = false;  // second multiplies x by its activation, otherwise it is added
  bool swish = true;
};

// What a call needs, so that the plainest has a kernel of few enough registers for full occupancy: neither bias, second
// stream nor weight offset, y of x's dtype, rows evenly spaced.
enum class Form { plain, rms, layer, gated_rms, gated_layer };
template <Form kForm>
inline constexpr bool kIsPlain = kForm == Form::plain;
template <Form kForm>
inline constexpr bool kHasMean = kForm == Form::layer || kForm == Form::gated_layer;
template <Form kForm>
inline constexpr bool kHasGate = kForm == Form::gated_rms || kForm == Form::gated_layer;
template <Form kForm>
FLA_DEVICE RowAt row_at(const ForwardArgs& a, int64_t row) {
  return kIsPlain<kForm> ? RowAt{static_cast<uint32_t>(row), 0} : a.grid.at(row);
}

// Stands for the dtype of a second stream that is not there.
struct NoSecond {};
// Kernels that have work enough for their loads, or little beside them: plain ones, and those with a second stream.
template <class S, Form kForm>
inline constexpr bool kIsLean = kIsPlain<kForm> || !std::is_same_v<S, NoSecond>;

template <bool kShort, int kWidth>
FLA_DEVICE void join(const ForwardArgs& a, float (&u)[kWidth], const float (&second)[kWidth]) {
  if (a.second_is_gate) {
    FLA_UNROLL
    for (int e = 0; e < kWidth; ++e) u[e] *= gate_value<kShort>(second[e], a.swish);
  } else {
    FLA_UNROLL
    for (int e = 0; e < kWidth; ++e) u[e] += second[e];
  }
}

template <int kWidth>
FLA_DEVICE void add_deviations(const float (&u)[kWidth], float mean, float& sum) {
  FLA_UNROLL
  for (int e = 0; e < kWidth; ++e) sum = fmaf(u[e] - mean, u[e] - mean, sum);
}

// One row as one thread sees it: `kVectors` vectors of kWidth elements, `step` vectors apart.
template <class T, class S, int kVectors>
struct RowInRegisters {
  static constexpr int kWidth = 16 / sizeof(T);
  static constexpr bool kJoined = !std::is_same_v<S, NoSecond>;
  // Alone the row stays packed; what x and the second stream make has to be kept unrounded.
  using Held = std::conditional_t<kJoined, Vector<float, kWidth>, Vector<T, kWidth>>;
  Held held[kVectors];

  // Vectors at or past `end` count as zero.
  FLA_DEVICE void read(const ForwardArgs& a, RowAt row, int first, int step, int end) {
    const T* x = static_cast<const T*>(a.x.data.data) + row.in(a.x);
    if constexpr (!kJoined) {
      FLA_UNROLL
      for (int i = 0; i < kVectors; ++i) {
        const int vector = first + i * step;
        held[i] = vector < end ? load<T, kWidth>(x + vector * kWidth) : zero_vector<T, kWidth>();
      }
    } else {
      const S* r = static_cast<const S*>(a.second.data.data) + row.in(a.second);
      Vector<T, kWidth> vx[kVectors];
      Vector<S, kWidth> vr[kVectors];
      FLA_UNROLL
      for (int i = 0; i < kVectors; ++i) {
        const int vector = first + i * step;
        vx[i] = vector < end ? load<T, kWidth>(x + vector * kWidth) : zero_vector<T, kWidth>();
        vr[i] = vector < end ? load<S, kWidth>(r + vector * kWidth) : zero_vector<S, kWidth>();
      }
      FLA_UNROLL
      for (int i = 0; i < kVectors; ++i) {
        float u[kWidth], second[kWidth];
        unpack(vx[i], u);
        unpack(vr[i], second);
        join<sizeof(S) == 2>(a, u, second);
        held[i] = pack<float, kWidth>(u);
      }
    }
  }

  FLA_DEVICE float sum() const {
    float sums[2] = {};
    FLA_UNROLL
    for (int i = 0; i < kVectors; ++i) {
      float u[kWidth];
      unpack(held[i], u);
      FLA_UNROLL
      for (int e = 0; e < kWidth; ++e) sums[e % 2] += u[e];
    }
    return sums[0] + sums[1];
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

  // Squares of the deviations from `mean`. Vectors past the end are zeros that deviate: they are left out.
  FLA_DEVICE float sum_of_deviations(float mean, int first, int step, int end) const {
    float sum = 0.0f;
    FLA_UNROLL
    for (int i = 0; i < kVectors; ++i) {
      const bool inside = first + i * step < end;
      if (kJoined && !inside) continue;  // of unrounded sums, which fill the registers; elsewhere a branch parts a lane's rows
      float u[kWidth], squares = 0.0f;
      unpack(held[i], u);
      add_deviations(u, mean, squares);
      sum += inside ? squares : 0.0f;
    }
    return sum;
  }
};

// Of one vector's columns, the offset added to the weights.
template <int kWidth>
struct Parameters {
  float weight[kWidth], bias[kWidth];
};

// Weights and biases of the same vectors, packed and of one dtype. Absent ones are ones and zeros: a test for each vector
// would part the loads. They are fetched beside the row where few registers hold them (a trip to L2 after the reduction would
// cost as much as the row itself when there are few rows), else with each vector.
template <class W, int kWidth, int kCount, Form kForm>
struct HeldParameters {
  static constexpr bool kBias = !kIsPlain<kForm>;
  Vector<W, kWidth> weight[kCount], bias[kBias ? kCount : 1];

  static FLA_DEVICE Vector<W, kWidth> constant(float value) {
    float values[kWidth];
    FLA_UNROLL
    for (float& v : values) v = value;
    return pack<W, kWidth>(values);
  }

  FLA_DEVICE void read(const ForwardArgs& a, uint32_t group, int first, int step, int end) {
    const W* w = static_cast<const W*>(a.weight.data) + group * a.weight_stride;
    const W* b = static_cast<const W*>(a.bias.data) + group * a.bias_stride;
    FLA_UNROLL
    for (int i = 0; i < kCount; ++i) {
      const int vector = first + i * step;
      const bool inside = vector < end;
      weight[i] = a.weight && inside ? load<W, kWidth>(w + vector * kWidth) : constant(1.0f);
      if constexpr (kBias) bias[i] = a.bias && inside ? load<W, kWidth>(b + vector * kWidth) : constant(0.0f);
    }
  }
  FLA_DEVICE Parameters<kWidth> values(const ForwardArgs& a, int i) const {
    Parameters<kWidth> p;
    unpack(weight[i], p.weight);
    if constexpr (!kIsPlain<kForm>) {
      unpack(bias[i], p.bias);
      FLA_UNROLL
      for (float& w : p.weight) w += a.weight_offset;
    }
    return p;
  }
};

// Fetched for one vector when it is written.
template <class W, int kWidth, Form kForm>
FLA_DEVICE Parameters<kWidth> parameters_of_vector(const ForwardArgs& a, uint32_t group, int vector) {
  HeldParameters<W, kWidth, 1, kForm> own;
  own.read(a, group, vector, 1, vector + 1);
  return own.values(a, 0);
}

// Registers that those of one vector take.
template <class W, int kWidth, Form kForm>
inline constexpr int kParameterRegisters = kWidth * static_cast<int>(sizeof(W)) / (kIsPlain<kForm> ? 4 : 2);

// The gate of the same vectors.
template <class T, int kVectors, bool kPresent>
struct HeldGate {
  static constexpr int kWidth = 16 / sizeof(T);
  Vector<T, kWidth> held[kPresent ? kVectors : 1];

  FLA_DEVICE void read(const ForwardArgs& a, RowAt row, int first, int step, int end) {
    if constexpr (kPresent) {
      const T* gate = static_cast<const T*>(a.gate.data.data) + row.in(a.gate);
      FLA_UNROLL
      for (int i = 0; i < kVectors; ++i) {
        const int vector = first + i * step;
        held[i] = vector < end ? load<T, kWidth>(gate + vector * kWidth) : zero_vector<T, kWidth>();
      }
    }
  }
};

struct RowStatistic {
  float mean = 0.0f, rstd = 0.0f;
};

// Of rows one below the other, the first `count` of them.
template <bool kMean, int kRows>
FLA_DEVICE void store_statistics(const ForwardArgs& a, RowAt row, const RowStatistic (&s)[kRows], int count) {
  auto store_each = [&](const RowOperand& to, auto value_of) {
    if (!to.data) return;
    FLA_UNROLL
    for (uint32_t i = 0; i < kRows; ++i)
      if (static_cast<int>(i) < count)
        store_float(static_cast<float*>(to.data.data) + RowAt{row.m, row.g, i}.in(to), value_of(s[i]));
  };
  store_each(a.rstd, [](const RowStatistic& of) { return of.rstd; });
  if constexpr (kMean) store_each(a.mean, [](const RowStatistic& of) { return of.mean; });
}
template <bool kMean>
FLA_DEVICE void store_statistic(const ForwardArgs& a, RowAt row, const RowStatistic& s) {
  store_statistics<kMean, 1>(a, row, {s}, 1);
}

// Calls f with the dtype of y, where that is T, or with void: asked once, not at every vector.
template <class T, Form kForm, class F>
FLA_DEVICE void with_output_dtype(const ForwardArgs& a, F&& f) {
  if (kIsPlain<kForm> || a.y.data.dtype == kDTypeOf<T>) f(TypeTag<T>{});
  else if constexpr (!kIsPlain<kForm>) f(TypeTag<void>{});
}

// Writes y (and the stored sum) of one vector of a row, where it is `inside`. `gate` is read where `gated`.
template <class T, class Out, Form kForm, bool kStoresSum, int kWidth>
FLA_DEVICE void write_vector(const ForwardArgs& a, float (&u)[kWidth], const Parameters<kWidth>& p,
                             const float (&gate)[kWidth], bool gated, const RowStatistic& s, RowAt row, int column,
                             bool inside = true) {
  if constexpr (kIsPlain<kForm>) {
    FLA_UNROLL
    for (int e = 0; e < kWidth; ++e) u[e] = u[e] * s.rstd * p.weight[e];
  } else {
    if (kStoresSum && inside && a.residual_out.data) store_floats(a.residual_out.data, row.in(a.residual_out) + column, u);
    FLA_UNROLL
    for (int e = 0; e < kWidth; ++e)
      u[e] = fmaf((kHasMean<kForm> ? u[e] - s.mean : u[e]) * s.rstd, p.weight[e], p.bias[e]);
    if (gated) {
      FLA_UNROLL
      for (int e = 0; e < kWidth; ++e) u[e] *= gate_value<sizeof(T) == 2>(gate[e], a.swish);
    }
  }
  if (!inside) return;
  if constexpr (std::is_void_v<Out>) store_floats(a.y.data, row.in(a.y) + column, u);
  else store_floats(static_cast<Out*>(a.y.data.data) + row.in(a.y) + column, u);
}

// Writes this thread's vectors of a row; parameters_of(i, vector) are those of its i-th. kReads: it fetches them, of vectors
// that there are.
template <class Out, Form kForm, bool kReads, class T, class S, int kVectors, class ParametersOf>
FLA_DEVICE void write_row(const ForwardArgs& a, const RowInRegisters<T, S, kVectors>& held, ParametersOf&& parameters_of,
                          const HeldGate<T, kVectors, kHasGate<kForm>>& gate, RowAt row, const RowStatistic& s,
                          int first, int step, int end) {
  constexpr int kWidth = RowInRegisters<T, S, kVectors>::kWidth;
  FLA_UNROLL
  for (int i = 0; i < kVectors; ++i) {
    const int vector = first + i * step;
    if (kReads && vector >= end) continue;
    float u[kWidth], g[kWidth];
    unpack(held.held[i], u);
    if constexpr (kHasGate<kForm>) unpack(gate.held[i], g);
    write_vector<T, Out, kForm, RowInRegisters<T, S, kVectors>::kJoined>(a, u, parameters_of(i, vector), g, kHasGate<kForm>, s, row,
                                                                         vector * kWidth, vector < end);
  }
}

}  // namespace fla::detail
