// A row as the forward kernels hold it, and what they write of it (row_norm_forward.cuh).
#pragma once

#include <type_traits>

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
  int32_t shared_vectors = 0;   // vectors at the end of the row that stay in shared memory
  float eps = 0, weight_offset = 0;
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

// Stands for the dtype of a second stream that is not there, and of weights that are loaded when they are used.
struct NoSecond {};
struct LateWeight {};

template <Form kForm>
FLA_DEVICE int64_t row_offset(const ForwardArgs& a, int64_t row, const RowOperand& operand) {
  return a.grid.offset<kIsPlain<kForm>>(row, operand);
}
template <Form kForm>
FLA_DEVICE uint32_t row_group(const ForwardArgs& a, int64_t row) {
  return kIsPlain<kForm> ? 0 : a.grid.group(row);
}

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
  template <Form kForm>
  FLA_DEVICE void read(const ForwardArgs& a, int64_t row, int first, int step, int end) {
    const T* x = static_cast<const T*>(a.x.data.data) + row_offset<kForm>(a, row, a.x);
    if constexpr (!kJoined) {
      FLA_UNROLL
      for (int i = 0; i < kVectors; ++i) {
        const int vector = first + i * step;
        held[i] = vector < end ? load<T, kWidth>(x + vector * kWidth) : zero_vector<T, kWidth>();
      }
    } else {
      const S* r = static_cast<const S*>(a.second.data.data) + a.grid.offset(row, a.second);
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
      if (first + i * step < end) {
        float u[kWidth];
        unpack(held[i], u);
        add_deviations(u, mean, sum);
      }
    }
    return sum;
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
// Forms with more streams have no registers for that, and weights of any dtype.
template <int kWidth, int kVectors>
struct HeldWeight<LateWeight, kWidth, kVectors> {
  FLA_DEVICE void read(const ForwardArgs&, uint32_t, int, int, int) {}
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

// The gate of the same vectors.
template <class T, int kVectors, bool kPresent>
struct HeldGate {
  static constexpr int kWidth = 16 / sizeof(T);
  Vector<T, kWidth> held[kPresent ? kVectors : 1];

  FLA_DEVICE void read(const ForwardArgs& a, int64_t row, int first, int step, int end) {
    if constexpr (kPresent) {
      const T* gate = static_cast<const T*>(a.gate.data.data) + a.grid.offset(row, a.gate);
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

template <bool kMean>
FLA_DEVICE void store_statistic(const ForwardArgs& a, int64_t row, const RowStatistic& s) {
  if (a.rstd.data) store_float(static_cast<float*>(a.rstd.data.data) + a.grid.offset(row, a.rstd), s.rstd);
  if (kMean && a.mean.data) store_float(static_cast<float*>(a.mean.data.data) + a.grid.offset(row, a.mean), s.mean);
}

// Where one row is written.
struct RowTarget {
  int64_t y, residual_out, bias;
};
template <Form kForm>
FLA_DEVICE RowTarget row_target(const ForwardArgs& a, int64_t row, uint32_t group) {
  return {row_offset<kForm>(a, row, a.y), kIsPlain<kForm> ? 0 : a.grid.offset(row, a.residual_out), group * a.bias_stride};
}

// Writes y (and the stored sum) of one vector of a row. `gate` is read where `gated`.
template <class T, Form kForm, int kWidth>
FLA_DEVICE void write_vector(const ForwardArgs& a, float (&u)[kWidth], float (&w)[kWidth], const float (&gate)[kWidth],
                             bool gated, const RowStatistic& s, const RowTarget& to, int column) {
  if constexpr (kIsPlain<kForm>) {
    FLA_UNROLL
    for (int e = 0; e < kWidth; ++e) u[e] = u[e] * s.rstd * w[e];
    store_floats(static_cast<T*>(a.y.data.data) + to.y + column, u);
  } else {
    if (a.residual_out.data) store_floats(a.residual_out.data, to.residual_out + column, u);
    FLA_UNROLL
    for (int e = 0; e < kWidth; ++e) {
      w[e] = a.weight ? w[e] + a.weight_offset : 1.0f;
      u[e] = (kHasMean<kForm> ? u[e] - s.mean : u[e]) * s.rstd * w[e];
    }
    if (a.bias) {
      float b[kWidth];
      load_floats(a.bias, to.bias + column, b);
      FLA_UNROLL
      for (int e = 0; e < kWidth; ++e) u[e] += b[e];
    }
    if (gated) {
      FLA_UNROLL
      for (int e = 0; e < kWidth; ++e) u[e] *= gate_value<sizeof(T) == 2>(gate[e], a.swish);
    }
    store_floats(a.y.data, to.y + column, u);
  }
}

template <Form kForm, class T, class S, class W, int kWidth, int kVectors>
FLA_DEVICE void write_row(const ForwardArgs& a, const RowInRegisters<T, S, kVectors>& held,
                          const HeldWeight<W, kWidth, kVectors>* weight,
                          const HeldGate<T, kVectors, kHasGate<kForm>>& gate, int64_t row, const RowStatistic& s,
                          int first, int step, int end) {
  const uint32_t group = row_group<kForm>(a, row);
  const RowTarget to = row_target<kForm>(a, row, group);
  FLA_UNROLL
  for (int i = 0; i < kVectors; ++i) {
    const int vector = first + i * step;
    if (vector < end) {
      float u[kWidth], w[kWidth], g[kWidth];
      unpack(held.held[i], u);
      const bool held_weight = !std::is_same_v<W, LateWeight> && weight && a.weight;
      if constexpr (!std::is_same_v<W, LateWeight>) {
        if (held_weight) unpack(weight->held[i], w);
      }
      if (!held_weight) load_weight(a, group * a.weight_stride + vector * kWidth, w);
      if constexpr (kHasGate<kForm>) unpack(gate.held[i], g);
      write_vector<T, kForm>(a, u, w, g, kHasGate<kForm>, s, to, vector * kWidth);
    }
  }
}

}  // namespace fla::detail
