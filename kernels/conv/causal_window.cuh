// What every kernel of the causal convolutions shares: the extended signal X(t), the sequences it is cut
// into, and the order in which a sum is formed. Forward, update and the recomputation in backward all go
// through fir() below, or through fir_at(), which performs the same operations one element at a time: that is
// why prefill, chunked prefill and decode give the same bits.
#pragma once

#include "common/gpu.h"
#include "common/mask.cuh"
#include "common/math.cuh"
#include "common/sequence.cuh"
#include "common/vector.cuh"
#include "fla/conv.h"

namespace fla::detail {

// [N, D, S] with free strides.
struct StateOperand {
  AnyFloat data;
  int64_t stride_n = 0, stride_d = 0, stride_s = 0;

  FLA_HOST_DEVICE explicit operator bool() const { return static_cast<bool>(data); }
  FLA_DEVICE int64_t offset(int64_t n, int64_t d, int64_t slot) const {
    return n * stride_n + d * stride_d + slot * stride_s;
  }
  FLA_DEVICE float read(int64_t n, int64_t d, int64_t slot) const {
    return load_float(data, offset(n, d, slot));
  }
  FLA_DEVICE void write(int64_t n, int64_t d, int64_t slot, float value) const {
    store_float(data, offset(n, d, slot), value);
  }
  // The slot of V neighbouring channels; one branch on the dtype for all.
  template <int V>
  FLA_DEVICE void read(int64_t n, int64_t d, int64_t slot, float (&out)[V]) const {
    const int64_t first = offset(n, d, slot);
    if (data.dtype == DType::bf16) gather(static_cast<const bf16*>(data.data) + first, out);
    else if (data.dtype == DType::f32) gather(static_cast<const float*>(data.data) + first, out);
    else gather(static_cast<const f16*>(data.data) + first, out);
  }

 private:
  template <class T, int V>
  FLA_DEVICE void gather(const T* p, float (&out)[V]) const {
    FLA_UNROLL
    for (int e = 0; e < V; ++e) out[e] = load_float(p + e * stride_d);
  }
};

inline StateOperand state_operand(const Tensor& t) {
  if (t.rank < 2) return {};
  return {any_float(t), t.rank > 2 ? t.stride[0] : 0, t.stride[t.rank - 2], t.stride[t.rank - 1]};
}

// weight [D, W], bias [D].
struct FilterOperand {
  AnyFloat weight, bias;
  int64_t stride_d = 0, bias_stride = 0;
  int64_t taps = 0;

  FLA_DEVICE float tap(int64_t d, int64_t k) const { return load_float(weight, d * stride_d + k); }
  FLA_DEVICE float bias_at(int64_t d) const { return bias ? load_float(bias, d * bias_stride) : 0.0f; }
};

inline FilterOperand filter_operand(const Tensor& weight, const Tensor& bias) {
  return {any_float(weight), any_float(bias), weight.stride[0], bias ? bias.stride[0] : 0, weight.size[1]};
}

// seq_idx [B, T].
struct GroupOperand {
  AnyIndex data;
  int64_t stride_b = 0, stride_t = 0;

  FLA_HOST_DEVICE explicit operator bool() const { return static_cast<bool>(data); }
  FLA_DEVICE int64_t read(int64_t b, int64_t t) const { return load_index(data, b * stride_b + t * stride_t); }
};

inline GroupOperand group_operand(const Tensor& t) {
  if (t.rank < 1) return {};
  return {any_index(t), t.rank > 1 ? t.stride[0] : 0, t.stride[t.rank - 1]};
}

// X(t) of a sequence: mask x inside it, the initial state in the S tokens before it, zero before that.
struct Signal {
  TokenOperand x;
  MaskOperand mask;
  StateOperand initial;
  SequenceMap sequences;
  int64_t slots = 0;
  GroupOperand groups;

  FLA_DEVICE bool is_padding(int64_t b, int64_t t) const { return groups && groups.read(b, t) < 0; }
  // Whether token t of row b, inside the row, is in this sequence and no padding.
  FLA_DEVICE bool holds(const Sequence& sequence, int64_t b, int64_t t) const {
    return t >= sequence.begin && t < sequence.end && !is_padding(b, t);
  }
  // Whether these two tokens of a row see each other.
  FLA_DEVICE bool joined(int64_t b, int64_t t, int64_t other) const {
    return !groups || groups.read(b, t) == groups.read(b, other);
  }
  // Whether all tokens of [first, end) of the row do, and none is padding; tokens before the row count for nothing.
  FLA_DEVICE bool all_joined(int64_t b, int64_t first, int64_t end) const {
    if (!groups) return true;
    const int64_t id = groups.read(b, end - 1);
    bool same = id >= 0;
    FLA_NO_UNROLL
    for (int64_t t = first < 0 ? 0 : first; t + 1 < end; ++t) same &= groups.read(b, t) == id;
    return same;
  }

  // Token t of row b, counted from the row's start as the sequence's bounds are; below the end.
  FLA_DEVICE float at(const Sequence& sequence, int64_t b, int64_t t, int64_t d) const {
    if (t >= sequence.begin) {
      const float value = x.read(b, t, d);
      return mask ? value * mask.read(b, t) : value;
    }
    const int64_t slot = slots + t - sequence.begin;
    return initial && slot >= 0 ? initial.read(sequence.index, d, slot) : 0.0f;
  }
  // What token t sees of the token `other` before it.
  FLA_DEVICE float seen(const Sequence& sequence, int64_t b, int64_t t, int64_t other, int64_t d) const {
    return other >= sequence.begin && !joined(b, t, other) ? 0.0f : at(sequence, b, other, d);
  }
};

// Bias first, then the taps in ascending order.
FLA_DEVICE float fir_at(const Signal& signal, const FilterOperand& filter, const Sequence& sequence,
                        int64_t b, int64_t t, int64_t d) {
  float z = filter.bias_at(d);
  for (int64_t k = 0; k < filter.taps; ++k)
    z = fmaf(filter.tap(d, k), signal.seen(sequence, b, t, t - (filter.taps - 1) + k, d), z);
  return z;
}

// What "no residual" adds: x + -0 is x, for both zeros.
inline constexpr float kNoResidual = -0.0f;

// How the activation is formed: by the dtype of the signal, the same in every kernel.
enum class Silu : int32_t { absent, full, for_16_bits };

inline Silu silu_form(ConvActivation activation, DType dtype) {
  if (activation != ConvActivation::silu) return Silu::absent;
  return size_of(dtype) == 2 ? Silu::for_16_bits : Silu::full;
}

// Calls f with the form as a constant: loops over tokens branch on it once per batch, since a branch per token would
// keep the tokens of a batch from overlapping.
template <Silu kForm>
struct SiluForm {
  static constexpr Silu value = kForm;
};
template <class F>
FLA_DEVICE void with_silu(Silu silu, F&& f) {
  if (silu == Silu::for_16_bits) f(SiluForm<Silu::for_16_bits>{});
  else if (silu == Silu::full) f(SiluForm<Silu::full>{});
  else f(SiluForm<Silu::absent>{});
}

// y = act(z) + residual, in place. The product and the sum are one operation in every kernel; left to the
// compiler it would be so in some. One branch for all channels: a branch each would keep them from
// overlapping.
template <int V>
FLA_DEVICE void activate(float (&z)[V], Silu silu, const float (&residual)[V]) {
  if (silu == Silu::for_16_bits) {
    FLA_UNROLL
    for (int e = 0; e < V; ++e) z[e] = fmaf(z[e], math::sigmoid_for_16_bits(z[e]).plus, residual[e]);
  } else if (silu == Silu::full) {
    FLA_UNROLL
    for (int e = 0; e < V; ++e) z[e] = fmaf(z[e], math::sigmoid(z[e]).plus, residual[e]);
  } else {
    FLA_UNROLL
    for (int e = 0; e < V; ++e) z[e] += residual[e];
  }
}

FLA_DEVICE float activate(float z, Silu silu, float residual) {
  float values[1] = {z};
  const float added[1] = {residual};
  activate(values, silu, added);
  return values[0];
}

// g *= act'(z).
template <int V>
FLA_DEVICE void multiply_by_slope(const float (&z)[V], Silu silu, float (&g)[V]) {
  auto multiply = [&](int e, const math::Sigmoid& s) { g[e] *= s.plus * fmaf(z[e], s.minus, 1.0f); };
  if (silu == Silu::for_16_bits) {
    FLA_UNROLL
    for (int e = 0; e < V; ++e) multiply(e, math::sigmoid_for_16_bits(z[e]));
  } else if (silu == Silu::full) {
    FLA_UNROLL
    for (int e = 0; e < V; ++e) multiply(e, math::sigmoid(z[e]));
  }
}

// N contiguous elements in the widest pieces that divide them, up to 16 bytes; the first on a 16-byte
// boundary.
template <int N, class T>
FLA_DEVICE void load_flat(const T* p, float (&out)[N]) {
  constexpr int kWidest = 16 / sizeof(T);
  constexpr int kPiece = N % kWidest == 0 ? kWidest : N % (kWidest / 2) == 0 ? kWidest / 2 : 1;
  Vector<T, kPiece> pieces[N / kPiece];
  FLA_UNROLL
  for (int i = 0; i < N / kPiece; ++i) pieces[i] = load<T, kPiece>(p + i * kPiece);
  FLA_UNROLL
  for (int i = 0; i < N / kPiece; ++i) {
    float values[kPiece];
    unpack(pieces[i], values);
    FLA_UNROLL
    for (int j = 0; j < kPiece; ++j) out[i * kPiece + j] = values[j];
  }
}

template <int N>
FLA_DEVICE void load_flat(const AnyFloat& p, int64_t index, float (&out)[N]) {
  if (p.dtype == DType::bf16) load_flat(static_cast<const bf16*>(p.data) + index, out);
  else if (p.dtype == DType::f32) load_flat(static_cast<const float*>(p.data) + index, out);
  else load_flat(static_cast<const f16*>(p.data) + index, out);
}

// The filters of V neighbouring channels.
template <int W, int V>
struct Filter {
  float tap[W][V], bias[V];
};

template <int W, int V>
FLA_DEVICE void load_filter(const FilterOperand& from, int64_t d, Filter<W, V>& filter) {
  float taps[W * V];
  load_flat(from.weight, d * W, taps);
  FLA_UNROLL
  for (int e = 0; e < V; ++e) {
    filter.bias[e] = 0.0f;
    FLA_UNROLL
    for (int k = 0; k < W; ++k) filter.tap[k][e] = taps[e * W + k];
  }
  if (from.bias) load_floats(from.bias, d, filter.bias);
}

// The W - 1 tokens before the present one, oldest first.
template <int W, int V>
struct Past {
  float token[W - 1][V];

  FLA_DEVICE void push(const float (&now)[V]) {
    FLA_UNROLL
    for (int e = 0; e < V; ++e) {
      FLA_UNROLL
      for (int k = 0; k + 2 < W; ++k) token[k][e] = token[k + 1][e];
      token[W - 2][e] = now[e];
    }
  }
};

template <int W, int V>
FLA_DEVICE void fir(const Filter<W, V>& filter, const Past<W, V>& past, const float (&now)[V],
                    float (&z)[V]) {
  FLA_UNROLL
  for (int e = 0; e < V; ++e) {
    float sum = filter.bias[e];
    FLA_UNROLL
    for (int k = 0; k + 1 < W; ++k) sum = fmaf(filter.tap[k][e], past.token[k][e], sum);
    z[e] = fmaf(filter.tap[W - 1][e], now[e], sum);
  }
}

template <int V>
FLA_DEVICE void scale(float (&values)[V], float factor) {
  FLA_UNROLL
  for (int e = 0; e < V; ++e) values[e] *= factor;
}

// X at token t of V channels, t inside its row's sequence.
template <class T, int V>
FLA_DEVICE void masked_token(const Signal& signal, const Vector<T, V>& stored, uint32_t b, int64_t t,
                             float (&now)[V]) {
  unpack(stored, now);
  if (signal.mask) scale(now, signal.mask.read(b, t));
}

// The window before token t of a sequence that contains it, with kGroups as token t sees it. No slot is missing, since
// S >= W - 1.
template <class T, bool kGroups = false, int W, int V>
FLA_DEVICE void load_past(const Signal& signal, const Sequence& sequence, uint32_t b, int64_t t, uint32_t d,
                          Past<W, V>& past) {
  FLA_UNROLL
  for (int k = 0; k + 1 < W; ++k) {
    const int64_t before = t - (W - 1) + k;
    if (before >= sequence.begin && (!kGroups || signal.joined(b, t, before))) {
      masked_token<T>(signal, load<T, V>(signal.x.address<T>(b, before, d)), b, before, past.token[k]);
    } else if (signal.initial) {  // never beside groups
      signal.initial.read(sequence.index, d, signal.slots + before - sequence.begin, past.token[k]);
    } else {
      FLA_UNROLL
      for (int e = 0; e < V; ++e) past.token[k][e] = 0.0f;
    }
  }
}

}  // namespace fla::detail
