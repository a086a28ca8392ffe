// Short causal convolutions.
#pragma once

#include <algorithm>
#include <vector>

#include "fla/conv.h"
#include "reference/sequences.h"
#include "reference/short_forms.h"
#include "reference/view.h"

namespace fla::reference {

// X(t) of one sequence and channel, and what of it the taps see.
template <class S>
class ConvSignal {
 public:
  ConvSignal(const Tensor& x, const Tensor& initial_state, const Tensor& mask, const Tensor& seq_idx, int64_t state_slots)
      : x_(x, 3, 0), initial_state_(initial_state, 3, 0), mask_(mask, 2, 0), seq_idx_(seq_idx, 2, 0), slots_(state_slots) {}

  bool padding(const Sequence& s, int64_t t) const { return seq_idx_ && seq_idx_(s.row, s.begin + t) < 0; }
  bool joined(const Sequence& s, int64_t t, int64_t other) const {
    return !seq_idx_ || seq_idx_(s.row, s.begin + t) == seq_idx_(s.row, s.begin + other);
  }
  // X(other) as token t has it.
  S seen(int64_t n, const Sequence& s, int64_t d, int64_t t, int64_t other) const {
    return padding(s, t) || (other >= 0 && !joined(s, t, other)) ? S(0.0) : (*this)(n, s, d, other);
  }

  S operator()(int64_t n, const Sequence& s, int64_t d, int64_t t) const {
    if (t < 0) return initial_state_ && slots_ + t >= 0 ? initial_state_(n, d, slots_ + t) : S(0.0);
    const S value = x_(s.row, s.begin + t, d);
    return mask_ ? mask_(s.row, s.begin + t) * value : value;
  }

 private:
  View<S> x_, initial_state_;
  NumberView<S> mask_;
  View<int64_t> seq_idx_;
  int64_t slots_;
};

// Slots of whichever state the call has; the others have as many.
inline int64_t state_slots(const Tensor& one, const Tensor& another) {
  const Tensor& t = one ? one : another;
  return t ? t.size[t.rank - 1] : 0;
}

// `x` is the dtype of the signal.
template <class S>
S conv_activation(ConvActivation activation, DType x, const S& z) {
  return activation == ConvActivation::silu ? z * sigmoid_(in_base_2(x, z)).plus : z;
}
template <class S>
S conv_activation_slope(ConvActivation activation, DType x, const S& z) {
  if (activation == ConvActivation::none) return S(1.0);
  const Sigmoid<S> s = sigmoid_(in_base_2(x, z));
  return s.plus * (S(1.0) + z * s.minus);
}

// bias + sum of taps in ascending order, by one accumulator: the order is promised.
template <class S, class Tap>
S conv_sum(const View<S>& weight, const View<S>& bias, int64_t d, Tap tap) {
  const int64_t W = weight.size(1);
  return sum<S>(
      W + 1,
      [&](int64_t i) {
        if (i > 0) return weight(d, i - 1) * tap(i - 1);
        return bias ? bias(d) : S(0.0);
      },
      kOneLane);
}

template <class S>
void write_final_state(const View<S>& out, const ConvSignal<S>& X, const std::vector<Sequence>& sequences) {
  if (!out) return;
  const int64_t slots = out.size(2);
  for (size_t n = 0; n < sequences.size(); ++n) {
    const auto index = static_cast<int64_t>(n);
    std::vector<S> state(static_cast<size_t>(slots));
    for (int64_t d = 0; d < out.size(1); ++d) {
      // Read before write: the final state may lie where the initial one was.
      for (int64_t c = 0; c < slots; ++c)
        state[static_cast<size_t>(c)] = X(index, sequences[n], d, sequences[n].length - slots + c);
      for (int64_t c = 0; c < slots; ++c) out(index, d, c) = state[static_cast<size_t>(c)];
    }
  }
}

template <class S>
void evaluate(const CausalConv1dForward& a) {
  const View<S> x(a.x, 3, 0), weight(a.weight), bias(a.bias), residual(a.residual, 3, 0), y(a.y, 3, 0);
  const int64_t B = x.size(0), T = x.size(1), D = x.size(2), W = weight.size(1);
  const ConvSignal<S> X(a.x, a.initial_state, a.mask, a.seq_idx, state_slots(a.initial_state, a.final_state));
  const std::vector<Sequence> sequences = sequences_of(a.cu_seqlens, B, T);
  for (int64_t b = 0; b < B; ++b)
    for (int64_t t = 0; t < T; ++t)
      for (int64_t d = 0; d < D; ++d) y(b, t, d) = S(0.0);
  for (size_t n = 0; n < sequences.size(); ++n) {
    const Sequence& s = sequences[n];
    for (int64_t t = 0; t < s.length; ++t) {
      for (int64_t d = 0; d < D && !X.padding(s, t); ++d) {
        const S z = conv_sum(weight, bias, d,
                             [&](int64_t k) { return X.seen(static_cast<int64_t>(n), s, d, t, t - (W - 1) + k); });
        S out = conv_activation(a.activation, a.x.dtype, z);
        if (residual) out = out + residual(s.row, s.begin + t, d);
        y(s.row, s.begin + t, d) = out;
      }
    }
  }
  write_final_state(View<S>(a.final_state, 3, 0), X, sequences);
}

// The backward of one channel: g of every token first, then everything that is a sum over it.
template <class S>
class ConvChannelGradient {
 public:
  explicit ConvChannelGradient(const CausalConv1dBackward& a)
      : activation_(a.activation),
        dtype_(a.x.dtype),
        weight_(a.weight),
        bias_(a.bias),
        dweight_(a.dweight),
        dbias_(a.dbias),
        dy_(a.dy, 3, 0),
        dx_(a.dx, 3, 0),
        dfinal_state_(a.dfinal_state, 3, 0),
        dinitial_state_(a.dinitial_state, 3, 0),
        mask_(a.mask, 2, 0),
        slots_(state_slots(a.initial_state, a.dfinal_state)),
        X_(a.x, a.initial_state, a.mask, a.seq_idx, slots_),
        sequences_(sequences_of(a.cu_seqlens, dy_.size(0), dy_.size(1))) {
    for (size_t n = 0; n < sequences_.size(); ++n)
      for (int64_t t = 0; t < sequences_[n].length; ++t) tokens_.push_back({static_cast<int64_t>(n), t});
    g_.resize(tokens_.size());
  }

  void evaluate(int64_t d) {
    for (size_t i = 0; i < tokens_.size(); ++i) g_[i] = upstream(tokens_[i], d);
    const auto total = static_cast<int64_t>(tokens_.size());
    auto g = [&](int64_t i) { return g_[static_cast<size_t>(i)]; };
    if (dbias_) dbias_(d) = sum<S>(total, g);
    for (int64_t k = 0; dweight_ && k < taps(); ++k)
      dweight_(d, k) =
          sum<S>(total, [&](int64_t i) { return g(i) * tap(tokens_[static_cast<size_t>(i)], d, k); });
    size_t first = 0;
    for (size_t n = 0; n < sequences_.size(); ++n) {
      write_dx(static_cast<int64_t>(n), d, g_.data() + first);
      write_dinitial_state(static_cast<int64_t>(n), d, g_.data() + first);
      first += static_cast<size_t>(sequences_[n].length);
    }
  }

  const std::vector<Sequence>& sequences() const { return sequences_; }
  bool padding(const Sequence& s, int64_t t) const { return X_.padding(s, t); }

 private:
  struct Token {
    int64_t sequence, t;
  };

  int64_t taps() const { return weight_.size(1); }
  const Sequence& at(int64_t n) const { return sequences_[static_cast<size_t>(n)]; }
  S tap(const Token& token, int64_t d, int64_t k) const {
    return X_.seen(token.sequence, at(token.sequence), d, token.t, token.t - (taps() - 1) + k);
  }
  S upstream(const Token& token, int64_t d) const {
    const Sequence& s = at(token.sequence);
    if (X_.padding(s, token.t)) return S(0.0);
    const S dy = dy_(s.row, s.begin + token.t, d);
    if (activation_ == ConvActivation::none) return dy;
    const S z = conv_sum(weight_, bias_, d, [&](int64_t k) { return tap(token, d, k); });
    return dy * conv_activation_slope(activation_, dtype_, z);
  }

  // Token t is tap W-1-j of token t + j, and slot t + S - L of the final state.
  void write_dx(int64_t n, int64_t d, const S* g) const {
    if (!dx_) return;
    const Sequence& s = at(n);
    for (int64_t t = 0; t < s.length; ++t) {
      const int64_t reach = std::min(taps(), s.length - t), slot = t + slots_ - s.length;
      S total = sum<S>(
          reach, [&](int64_t j) { return X_.joined(s, t, t + j) ? weight_(d, taps() - 1 - j) * g[t + j] : S(0.0); }, kOneLane);
      if (dfinal_state_ && slot >= 0) total = total + dfinal_state_(n, d, slot);
      dx_(s.row, s.begin + t, d) = mask_ ? mask_(s.row, s.begin + t) * total : total;
    }
  }

  // Slot c is tap W-1-(t+S-c) of token t, and slot c - L of the final state.
  void write_dinitial_state(int64_t n, int64_t d, const S* g) const {
    if (!dinitial_state_) return;
    const int64_t length = at(n).length;
    for (int64_t c = 0; c < slots_; ++c) {
      const int64_t seen_by = std::clamp<int64_t>(taps() - slots_ + c, 0, length);
      S total = sum<S>(
          seen_by, [&](int64_t t) { return weight_(d, taps() - 1 - (t + slots_ - c)) * g[t]; }, kOneLane);
      if (dfinal_state_ && c >= length) total = total + dfinal_state_(n, d, c - length);
      dinitial_state_(n, d, c) = total;
    }
  }

  ConvActivation activation_;
  DType dtype_;  // of the signal
  View<S> weight_, bias_, dweight_, dbias_, dy_, dx_, dfinal_state_, dinitial_state_;
  NumberView<S> mask_;
  int64_t slots_;
  ConvSignal<S> X_;
  std::vector<Sequence> sequences_;
  std::vector<Token> tokens_;
  std::vector<S> g_;
};

template <class S>
void evaluate(const CausalConv1dBackward& a) {
  ConvChannelGradient<S> channel(a);
  const View<S> dy(a.dy, 3, 0), dx(a.dx, 3, 0), dresidual(a.dresidual, 3, 0);
  const int64_t B = dy.size(0), T = dy.size(1), D = dy.size(2);
  for (int64_t b = 0; b < B; ++b) {
    for (int64_t t = 0; t < T; ++t) {
      for (int64_t d = 0; d < D; ++d) {
        // Of tokens in no sequence; the others are overwritten.
        if (dx) dx(b, t, d) = S(0.0);
        if (dresidual) dresidual(b, t, d) = S(0.0);
      }
    }
  }
  for (int64_t d = 0; d < D; ++d) channel.evaluate(d);
  if (!dresidual) return;
  for (const Sequence& s : channel.sequences())
    for (int64_t t = s.begin; t < s.begin + s.length; ++t)
      for (int64_t d = 0; d < D && !channel.padding(s, t - s.begin); ++d) dresidual(s.row, t, d) = dy(s.row, t, d);
}

template <class S>
void evaluate(const CausalConv1dStates& a) {
  const View<S> x(a.x, 3, 0), final_state(a.final_state, 3, 0);
  const ConvSignal<S> X(a.x, a.initial_state, Tensor{}, Tensor{}, state_slots(a.initial_state, a.final_state));
  write_final_state(final_state, X, sequences_of(a.cu_seqlens, x.size(0), x.size(1)));
}

template <class S>
void evaluate(const CausalConv1dUpdate& a) {
  const View<S> x(a.x, 3, 1), weight(a.weight), bias(a.bias), residual(a.residual, 3, 1), state(a.conv_state),
      y(a.y, 3, 1);
  const NumberView<S> mask(a.mask, 2, 1);
  const View<int64_t> indices(a.conv_state_indices);
  const int64_t tokens = x.size(1), W = weight.size(1), slots = state.size(2);
  for (int64_t n = 0; n < x.size(0); ++n) {
    const int64_t q = indices ? indices(n) : n;
    const bool padding = q < 0 || q >= state.size(0) || (indices && q == a.pad_slot);
    for (int64_t d = 0; d < x.size(2); ++d) {
      // The state with the new tokens behind it; the taps of the last are its last W entries.
      auto extended = [&](int64_t c) {
        if (c < slots) return state(q, d, c);
        return mask ? mask(n, c - slots) * x(n, c - slots, d) : x(n, c - slots, d);
      };
      for (int64_t i = 0; i < tokens; ++i) {
        y(n, i, d) = S(0.0);
        if (padding) continue;
        const S z = conv_sum(weight, bias, d, [&](int64_t k) { return extended(slots + i - (W - 1) + k); });
        const S out = conv_activation(a.activation, a.x.dtype, z);
        y(n, i, d) = residual ? out + residual(n, i, d) : out;
      }
      for (int64_t c = 0; !padding && c < slots; ++c) state(q, d, c) = extended(c + tokens);
    }
  }
}

}  // namespace fla::reference
