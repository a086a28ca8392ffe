// Token shift and its mixes.
#pragma once

#include "fla/token_shift.h"
#include "reference/sequences.h"

namespace fla::reference {

// The tokens of one sequence, with one before the first and one after the last: rows of the caches, or zeros.
template <class S>
class ShiftedTokens {
 public:
  ShiftedTokens(const Tensor& tokens, const Tensor& before, const Tensor& after)
      : tokens_(tokens, 3, 0), before_(before), after_(after) {}

  S operator()(int64_t n, const Sequence& s, int64_t t, int64_t d) const {
    if (t < 0) return before_ ? before_(n, d) : S(0.0);
    if (t >= s.length) return after_ ? after_(n, d) : S(0.0);
    return tokens_(s.row, s.begin + t, d);
  }

 private:
  View<S> tokens_, before_, after_;
};

// f(n, sequence, d) of every sequence and channel.
template <class F>
void for_each_channel(const std::vector<Sequence>& sequences, int64_t channels, F f) {
  for (size_t n = 0; n < sequences.size(); ++n)
    for (int64_t d = 0; d < channels; ++d) f(static_cast<int64_t>(n), sequences[n], d);
}

// Of tokens in no sequence; the others are overwritten.
template <class S>
void clear_tokens(const View<S>& out) {
  if (!out) return;
  for (int64_t b = 0; b < out.size(0); ++b)
    for (int64_t t = 0; t < out.size(1); ++t)
      for (int64_t d = 0; d < out.size(2); ++d) out(b, t, d) = S(0.0);
}

template <class S>
void evaluate(const TokenShiftForward& a) {
  const View<S> x(a.x, 3, 0), y(a.y, 3, 0), cache_out(a.cache_out);
  const ShiftedTokens<S> token(a.x, a.cache, {});
  clear_tokens(y);
  for_each_channel(sequences_of(a.cu_seqlens, x.size(0), x.size(1)), x.size(2),
                   [&](int64_t n, const Sequence& s, int64_t d) {
                     for (int64_t t = 0; t < s.length; ++t)
                       y(s.row, s.begin + t, d) = token(n, s, t - 1, d) - token(n, s, t, d);
                     if (cache_out) cache_out(n, d) = token(n, s, s.length - 1, d);
                   });
}

template <class S>
void evaluate(const TokenShiftBackward& a) {
  const View<S> dy(a.dy, 3, 0), dx(a.dx, 3, 0), dcache(a.dcache);
  const ShiftedTokens<S> upstream(a.dy, {}, a.dcache_out);
  clear_tokens(dx);
  for_each_channel(sequences_of(a.cu_seqlens, dy.size(0), dy.size(1)), dy.size(2),
                   [&](int64_t n, const Sequence& s, int64_t d) {
                     for (int64_t t = 0; dx && t < s.length; ++t)
                       dx(s.row, s.begin + t, d) = upstream(n, s, t + 1, d) - upstream(n, s, t, d);
                     if (dcache) dcache(n, d) = upstream(n, s, 0, d);
                   });
}

// Mix k of a tensor of all mixes.
inline Tensor mix_of(const Tensor& all, int64_t k, int64_t element_bytes) {
  Tensor one = all;
  one.data = static_cast<char*>(all.data) + k * all.stride[0] * element_bytes;
  --one.rank;
  for (int i = 0; i < one.rank; ++i) {
    one.size[i] = all.size[i + 1];
    one.stride[i] = all.stride[i + 1];
  }
  return one;
}

template <class S>
std::vector<View<S>> mixes_of(const Tensor& all) {
  std::vector<View<S>> mixes;
  for (int64_t k = 0; k < all.size[0]; ++k) mixes.emplace_back(mix_of(all, k, sizeof(S)), 3, 0);
  return mixes;
}

template <class S>
void evaluate(const TokenShiftMixForward& a) {
  const View<S> x(a.x, 3, 0), mu(a.mu), cache_out(a.cache_out);
  const ShiftedTokens<S> token(a.x, a.cache, {});
  const std::vector<View<S>> y = mixes_of<S>(a.y);
  for (const View<S>& one : y) clear_tokens(one);
  for_each_channel(sequences_of(a.cu_seqlens, x.size(0), x.size(1)), x.size(2),
                   [&](int64_t n, const Sequence& s, int64_t d) {
                     for (int64_t t = 0; t < s.length; ++t) {
                       const S now = token(n, s, t, d), delta = token(n, s, t - 1, d) - now;
                       for (size_t k = 0; k < y.size(); ++k)
                         y[k](s.row, s.begin + t, d) = now + delta * mu(static_cast<int64_t>(k), d);
                     }
                     if (cache_out) cache_out(n, d) = token(n, s, s.length - 1, d);
                   });
}

template <class S>
void evaluate(const TokenShiftMixBackward& a) {
  const View<S> x(a.x, 3, 0), mu(a.mu), dx(a.dx, 3, 0), dmu(a.dmu), dcache(a.dcache), after(a.dcache_out);
  const ShiftedTokens<S> token(a.x, a.cache, {});
  const std::vector<View<S>> dy = mixes_of<S>(a.dy);
  const auto K = static_cast<int64_t>(dy.size());
  const auto mix = [&](int64_t k) -> const View<S>& { return dy[static_cast<size_t>(k)]; };
  const std::vector<Sequence> sequences = sequences_of(a.cu_seqlens, x.size(0), x.size(1));
  clear_tokens(dx);
  for_each_channel(sequences, x.size(2), [&](int64_t n, const Sequence& s, int64_t d) {
    const auto edge = [&] { return after ? after(n, d) : S(0.0); };
    // Term i of what token t passes back to the one before.
    const auto passed = [&](int64_t t, int64_t k) { return mix(k)(s.row, s.begin + t, d) * mu(k, d); };
    for (int64_t t = 0; dx && t < s.length; ++t) {
      const auto kept = [&](int64_t k) { return mix(k)(s.row, s.begin + t, d) * (S(1.0) - mu(k, d)); };
      const bool last = t + 1 == s.length;
      dx(s.row, s.begin + t, d) = sum<S>(
          last ? K + 1 : 2 * K,
          [&](int64_t i) { return i < K ? kept(i) : last ? edge() : passed(t + 1, i - K); }, kOneLane);
    }
    if (!dcache) return;
    dcache(n, d) = s.length == 0 ? edge() : sum<S>(K, [&](int64_t k) { return passed(0, k); }, kOneLane);
  });
  if (!dmu) return;
  struct Token {
    int64_t n, t;
  };
  std::vector<Token> tokens;
  for (size_t n = 0; n < sequences.size(); ++n)
    for (int64_t t = 0; t < sequences[n].length; ++t) tokens.push_back({static_cast<int64_t>(n), t});
  for (int64_t k = 0; k < K; ++k)
    for (int64_t d = 0; d < x.size(2); ++d)
      dmu(k, d) = sum<S>(static_cast<int64_t>(tokens.size()), [&](int64_t i) {
        const auto [n, t] = tokens[static_cast<size_t>(i)];
        const Sequence& s = sequences[static_cast<size_t>(n)];
        return mix(k)(s.row, s.begin + t, d) * (token(n, s, t - 1, d) - token(n, s, t, d));
      });
}

}  // namespace fla::reference
