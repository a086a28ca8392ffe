// Long convolutions: direct sums in double, with the error that fast transforms may make.
#pragma once

#include <algorithm>
#include <bit>
#include <numbers>
#include <vector>

#include "fla/long_conv.h"
#include "reference/view.h"

namespace fla::reference {

// (sum of squares)^(1/2) of what the numbers may be.
template <class S>
double norm_of(const std::vector<S>& x) {
  double squares = 0;
  for (const S& s : x) squares += value(s) * value(s);
  return std::sqrt(squares);
}
inline double norm_of(const std::vector<Bound>& x) {
  double squares = 0;
  for (const Bound& s : x) squares += (std::abs(s.v) + s.e) * (std::abs(s.v) + s.e);
  return std::sqrt(squares);
}

// An element of a convolution by transforms of n points has rounding errors relative to the norms of both sequences,
// |k| |u|, whatever its own size. By Parseval, and as every |c[t]| <= |k| |u|, each of three transforms adds to it what
// its log2 n levels round: a twiddle factor's product (2), the sum (1), and 1 for the factor itself. These behave like
// noise, as in every other sum here. Short rows may be padded to 512 points. `terms` such products are added up.
inline double transform_factor(int64_t length, int64_t terms) {
  const double levels = std::bit_width(static_cast<uint64_t>(std::max<int64_t>(2 * length, 512) - 1));
  constexpr double kTransforms = 3, kRoundingsOfALevel = 4;
  const double h = kTransforms * kRoundingsOfALevel * levels + reduction_depth(terms, kOneLane);
  return std::fmin(h, 6 * std::sqrt(h));
}
template <class S>
S with_transform_error(const S& exact, double, int64_t, int64_t) {
  return exact;
}
inline Bound with_transform_error(const Bound& exact, double norms, int64_t length, int64_t terms) {
  return bound::settled(exact.v, exact.e + transform_factor(length, terms) * kRounding * norms);
}

// Coefficients first .. first + count - 1 of the product of two polynomials, added to `sums`.
template <class S>
void add_product(const std::vector<S>& a, const std::vector<S>& b, int64_t first, std::vector<S>& sums) {
  const auto na = static_cast<int64_t>(a.size()), nb = static_cast<int64_t>(b.size());
  for (size_t n = 0; n < sums.size(); ++n) {
    const int64_t total = first + static_cast<int64_t>(n), from = std::max<int64_t>(0, total - nb + 1);
    const int64_t last = std::min(na - 1, total);
    if (from > last) continue;
    sums[n] = sums[n] + sum<S>(last - from + 1, [&](int64_t i) {
      return a[static_cast<size_t>(from + i)] * b[static_cast<size_t>(total - from - i)];
    });
  }
}
// Row by row of the product, which vectorises.
inline void add_product(const std::vector<double>& a, const std::vector<double>& b, int64_t first,
                        std::vector<double>& sums) {
  const auto nb = static_cast<int64_t>(b.size()), count = static_cast<int64_t>(sums.size());
  for (size_t i = 0; i < a.size(); ++i) {
    if (a[i] == 0) continue;
    const int64_t shift = static_cast<int64_t>(i) - first;  // b[j] goes to sums[j + shift]
    const int64_t from = std::max<int64_t>(0, -shift), last = std::min(nb, count - shift);
    for (int64_t j = from; j < last; ++j) sums[static_cast<size_t>(j + shift)] += a[i] * b[static_cast<size_t>(j)];
  }
}
// What the factors' own errors do; the rounding is with_transform_error's.
inline void add_product(const std::vector<Bound>& a, const std::vector<Bound>& b, int64_t first,
                        std::vector<Bound>& sums) {
  const auto part = [](const std::vector<Bound>& x, auto f) {
    std::vector<double> r(x.size());
    std::transform(x.begin(), x.end(), r.begin(), f);
    return r;
  };
  const auto v = [](const Bound& x) { return x.v; };
  const auto e = [](const Bound& x) { return x.ambiguous ? x.e + std::abs(x.other - x.v) + x.other_e : x.e; };
  const auto most = [&](const Bound& x) { return std::abs(x.v) + e(x); };
  const auto magnitude = [](const Bound& x) { return std::abs(x.v); };
  std::vector<double> values(sums.size()), errors(sums.size());
  add_product(part(a, v), part(b, v), first, values);
  const std::vector<double> ea = part(a, e), eb = part(b, e);
  const auto any = [](const std::vector<double>& x) { return std::any_of(x.begin(), x.end(), [](double r) { return r != 0; }); };
  if (any(ea)) add_product(ea, part(b, most), first, errors);
  if (any(eb)) add_product(part(a, magnitude), eb, first, errors);
  for (size_t n = 0; n < sums.size(); ++n)
    sums[n] = bound::settled(sums[n].v + values[n], sums[n].e + errors[n]);
}

// The rows of a call, channel by channel.
template <class S>
class LongConvCall {
 public:
  template <class A>
  explicit LongConvCall(const A& a)
      : layout_(a.layout), circular_(a.wrap == LongConvWrap::circular2L), gelu_(a.gelu), u_(a.u), k_(a.k), k_rev_(a.k_rev),
        skip_(a.skip), mask_(a.dropout_mask) {
    const int time = layout_ == LongConvLayout::bld ? 1 : a.u.rank - 1, channel = layout_ == LongConvLayout::bld ? 2 : 1;
    B = a.u.size[0];
    L = a.u.size[time];
    D = a.u.size[channel];
    V = layout_ == LongConvLayout::bhvl ? a.u.size[2] : 1;
  }
  int64_t B, L, D, V;

  S& at(const View<S>& t, int64_t d, int64_t row, int64_t time) const {
    switch (layout_) {
      case LongConvLayout::bld: return t(row, time, d);
      case LongConvLayout::bdl: return t(row, d, time);
      default: return t(row / V, d, row % V, time);
    }
  }
  std::vector<S> row_of(const View<S>& t, int64_t d, int64_t row) const {
    std::vector<S> x(static_cast<size_t>(L));
    for (int64_t time = 0; time < L; ++time) x[static_cast<size_t>(time)] = at(t, d, row, time);
    return x;
  }
  std::vector<S> u_row(int64_t d, int64_t row) const { return row_of(u_, d, row); }

  // Where lag j finds its tap in a filter, -1: nowhere. Of k_rev, with -j.
  int64_t tap_index(int64_t j, const View<S>& filter) const {
    if (!filter) return -1;
    const int64_t index = circular_ ? ((j % (2 * L)) + 2 * L) % (2 * L) : j;
    return index >= 0 && index < filter.size(1) ? index : -1;
  }
  // K(-(L - 1)) .. K(L - 1).
  std::vector<S> taps(int64_t d) const {
    std::vector<S> all(static_cast<size_t>(2 * L - 1), S(0.0));
    for (int64_t j = -(L - 1); j < L; ++j) {
      const int64_t ahead = tap_index(j, k_), behind = tap_index(-j, k_rev_);
      S& tap = all[static_cast<size_t>(j + L - 1)];
      if (ahead >= 0) tap = k_(d, ahead);
      if (behind >= 0) tap = ahead >= 0 ? tap + k_rev_(d, behind) : k_rev_(d, behind);
    }
    return all;
  }
  S skip(int64_t d) const { return skip_ ? skip_(d) : S(1.0); }
  S mask(int64_t d, int64_t row) const { return mask_ ? mask_(row, d) : S(1.0); }
  bool gelu() const { return gelu_; }

  // skip x + the convolution of x.
  std::vector<S> mixed(const std::vector<S>& taps, const std::vector<S>& x, int64_t d) const {
    std::vector<S> v(x.size(), S(0.0));
    add_product(taps, x, L - 1, v);
    const double norms = norm_of(taps) * norm_of(x);
    for (size_t t = 0; t < v.size(); ++t) v[t] = with_transform_error(v[t], norms, L, 1) + skip(d) * x[t];
    return v;
  }

 private:
  LongConvLayout layout_;
  bool circular_, gelu_;
  View<S> u_, k_, k_rev_, skip_, mask_;
};

// Phi(v), the normal distribution, by the error function.
template <class S>
S normal_cdf(const S& v) {
  return S(0.5) + S(0.5) * erf_(v * S(std::numbers::sqrt2 / 2));
}

template <class S>
void evaluate(const LongConvForward& a) {
  const LongConvCall<S> call(a);
  const View<S> y(a.y);
  for (int64_t d = 0; call.L > 0 && d < call.D; ++d) {
    const std::vector<S> taps = call.taps(d);
    for (int64_t row = 0; row < call.B * call.V; ++row) {
      const std::vector<S> v = call.mixed(taps, call.u_row(d, row), d);
      for (int64_t t = 0; t < call.L; ++t) {
        const S& x = v[static_cast<size_t>(t)];
        call.at(y, d, row, t) = (call.gelu() ? x * normal_cdf(x) : x) * call.mask(d, row);
      }
    }
  }
}

template <class S>
void evaluate(const LongConvBackward& a) {
  const LongConvCall<S> call(a);
  const View<S> dy(a.dy), du(a.du), dk(a.dk), dk_rev(a.dk_rev), dskip(a.dskip);
  const int64_t L = call.L, rows = call.B * call.V;
  for (int64_t d = 0; d < call.D; ++d) {
    std::vector<S> lags(static_cast<size_t>(std::max<int64_t>(0, 2 * L - 1)), S(0.0));
    const std::vector<S> taps = L > 0 ? call.taps(d) : lags, adjoint(taps.rbegin(), taps.rend());
    double norms = 0;
    for (int64_t row = 0; L > 0 && row < rows; ++row) {
      std::vector<S> u = call.u_row(d, row), q = call.row_of(dy, d, row);
      const std::vector<S> v = call.gelu() ? call.mixed(taps, u, d) : q;
      for (size_t t = 0; t < q.size(); ++t) {
        q[t] = q[t] * call.mask(d, row);
        if (!call.gelu()) continue;
        const S density = S(1 / std::sqrt(2 * std::numbers::pi)) * exp_(S(-0.5) * v[t] * v[t]);
        q[t] = q[t] * (normal_cdf(v[t]) + v[t] * density);
      }
      if (du) {
        const std::vector<S> x = call.mixed(adjoint, q, d);
        for (int64_t t = 0; t < L; ++t) call.at(du, d, row, t) = x[static_cast<size_t>(t)];
      }
      norms += norm_of(q) * norm_of(u);
      std::reverse(u.begin(), u.end());
      if (dk || dk_rev || dskip) add_product(u, q, 0, lags);
    }
    const auto gradient = [&](int64_t j) {
      return j <= -L || j >= L ? S(0.0)
                               : with_transform_error(lags[static_cast<size_t>(j + L - 1)], norms, L, rows * (L / 512 + 1));
    };
    for (const View<S>* out : {&dk, &dk_rev}) {
      if (!*out) continue;
      const int64_t sign = out == &dk ? 1 : -1;
      for (int64_t m = 0; m < out->size(1); ++m) (*out)(d, m) = S(0.0);
      for (int64_t j = -(L - 1); j < L; ++j)
        if (const int64_t m = call.tap_index(sign * j, *out); m >= 0) (*out)(d, m) = gradient(j);
    }
    if (dskip) dskip(d) = gradient(0);
  }
}

template <class S>
void evaluate(const LongConvPosTable& a) {
  const View<S> z(a.z);
  const int64_t P = z.size(0), bands = (z.size(1) - 1) / 2;
  const S full_turn = S(2 * std::numbers::pi) * S(1.0);  // rounded to fp32, as products are
  for (int64_t l = 0; l < P; ++l) {
    z(l, 0) = P > 1 ? constant<S>(l) / constant<S>(P - 1) : S(0.0);
    for (int64_t i = 0; i < bands; ++i) {
      const double step = bands > 1 ? (static_cast<double>(bands - 1) - 1e-4) / static_cast<double>(bands - 1) : 0;
      const S frequency = constant<S>(static_cast<double>(static_cast<float>(1e-4 + step * static_cast<double>(i))));
      const S turns = frequency * constant<S>(l) / constant<S>(P);
      z(l, 1 + i) = cos_(full_turn * turns);
      z(l, 1 + bands + i) = -sin_(full_turn * turns);
    }
  }
}

// z W^T + b of one position: h before its relu, which decides without h's own zeros.
template <class S>
std::vector<S> before_relu(const View<S>& z, const View<S>& weight, const View<S>& bias, int64_t l) {
  std::vector<S> before;
  const int64_t E = weight.size(1);
  for (int64_t j = 0; j < weight.size(0); ++j) {
    before.push_back(sum<S>(E + 1, [&](int64_t e) { return e < E ? z(l, e) * weight(j, e) : bias(j); }, kOneLane));
  }
  return before;
}
template <class S>
std::vector<S> relu(std::vector<S> h) {
  for (S& x : h) x = max_(S(0.0), x);  // slope 0 at 0
  return h;
}

template <class S>
void evaluate(const ImplicitFilterForward& a) {
  const View<S> z(a.z), weight(a.output_weight), bias(a.output_bias), k(a.k);
  const int64_t H = weight.size(1);
  for (int64_t l = 0; l < k.size(1); ++l) {
    const std::vector<S> h = relu(before_relu(z, View<S>(a.hidden_weight), View<S>(a.hidden_bias), l));
    for (int64_t d = 0; d < k.size(0); ++d)
      k(d, l) = sum<S>(H + 1, [&](int64_t j) { return j < H ? weight(d, j) * h[static_cast<size_t>(j)] : bias(d); }, kOneLane);
  }
}

template <class S>
void evaluate(const ImplicitFilterBackward& a) {
  const View<S> z(a.z), weight(a.output_weight), dk(a.dk);
  const View<S> dhidden_weight(a.dhidden_weight), dhidden_bias(a.dhidden_bias), doutput_weight(a.doutput_weight),
      doutput_bias(a.doutput_bias);
  const int64_t D = weight.size(0), H = weight.size(1), E = z.size(1), L = dk.size(1);
  std::vector<std::vector<S>> h, da;
  for (int64_t l = 0; l < L; ++l) {
    const std::vector<S> before = before_relu(z, View<S>(a.hidden_weight), View<S>(a.hidden_bias), l);
    h.push_back(relu(before));
    da.emplace_back();
    for (int64_t j = 0; j < H; ++j) {
      const S dh = sum<S>(D, [&](int64_t d) { return dk(d, l) * weight(d, j); }, kOneLane);
      da.back().push_back(select_(less_(S(0.0), before[static_cast<size_t>(j)]), dh, S(0.0)));
    }
  }
  const auto over_taps = [&](auto term) { return sum<S>(L, term, kOneLane); };
  const auto at = [](const std::vector<std::vector<S>>& x, int64_t l, int64_t j) {
    return x[static_cast<size_t>(l)][static_cast<size_t>(j)];
  };
  for (int64_t d = 0; d < D; ++d) {
    for (int64_t j = 0; doutput_weight && j < H; ++j)
      doutput_weight(d, j) = over_taps([&](int64_t l) { return dk(d, l) * at(h, l, j); });
    if (doutput_bias) doutput_bias(d) = over_taps([&](int64_t l) { return dk(d, l); });
  }
  for (int64_t j = 0; j < H; ++j) {
    for (int64_t e = 0; dhidden_weight && e < E; ++e)
      dhidden_weight(j, e) = over_taps([&](int64_t l) { return at(da, l, j) * z(l, e); });
    if (dhidden_bias) dhidden_bias(j) = over_taps([&](int64_t l) { return at(da, l, j); });
  }
}

}  // namespace fla::reference
