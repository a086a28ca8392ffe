// Bound: a value and how far from it a good fp32 evaluation of the same expression may lie, to first order.
//
// Reading a stored number is exact (e = 0). An operation on exact operands whose result fp32 can hold is
// exact too, so fillings of small integers are judged with tolerance zero. Every other operation adds its
// rounding.
//
// e is meaningful where v is finite; where v is infinite or NaN it is 0 and acceptance is by class.
// Magnitudes beyond the fp32 range become infinite as in a kernel, unless the bound reaches back into the
// range: then both are acceptable and the value stays. A bound that nothing limits (a divisor that may be
// zero) is kUnbounded, not infinite, so that no 0 * inf can turn it into NaN.
#pragma once

#include <algorithm>
#include <numbers>

#include "reference/scalar/function_error.h"
#include "reference/scalar/real.h"

namespace fla::reference {

struct Bound {
  double v = 0, e = 0;
  // A comparison on the way was closer than the errors of its operands, so a kernel may have taken the other
  // branch, which leads to `other`.
  bool ambiguous = false;
  double other = 0, other_e = 0;

  constexpr Bound() = default;
  constexpr Bound(double value) : v(value) {}
  constexpr Bound(double value, double error) : v(value), e(error) {}
};

namespace bound {

inline constexpr double kUnbounded = 1e300;

constexpr Bound out_of_range(double v, double e) {
  if (std::isnan(v)) return Bound(v);
  if (!(e <= kUnbounded)) e = kUnbounded;
  if (std::abs(v) - e > kLargest) return Bound(std::copysign(HUGE_VAL, v));
  return Bound(v, e);
}
constexpr Bound settled(double v, double e) {
  if (std::abs(v) + e <= kLargest) [[likely]]
    return Bound(v, e);
  return out_of_range(v, e);
}

constexpr bool in_fp32(double v) { return static_cast<double>(static_cast<float>(v)) == v; }
constexpr bool exact(const Bound& a, const Bound& b, double v) { return a.e == 0 && b.e == 0 && in_fp32(v); }

// What the other branch computes with.
constexpr Bound alternative(const Bound& a) { return a.ambiguous ? Bound(a.other, a.other_e) : Bound(a.v, a.e); }
constexpr Bound with_other(Bound r, const Bound& other) {
  r.ambiguous = true;
  r.other = other.v;
  r.other_e = other.e;
  return r;
}

// A kernel may hold a zero here, as an underflow: times infinity it makes NaN there.
constexpr bool may_be_zero(const Bound& a) { return a.e > 0 && std::abs(a.v) <= a.e; }

// Two undecided operands are followed along their first and along their second branches; the mixed pairs are
// not, as decisions that meet again are nearly always the same decision.
template <class F>
constexpr Bound apply(const Bound& a, const Bound& b, F f) {
  const Bound r = f(a, b);
  if (a.ambiguous | b.ambiguous) [[unlikely]]
    return with_other(r, f(alternative(a), alternative(b)));
  return r;
}
template <class F>
constexpr Bound apply(const Bound& a, F f) {
  const Bound r = f(a);
  if (a.ambiguous) [[unlikely]]
    return with_other(r, f(alternative(a)));
  return r;
}

constexpr double ulps(double k, double v) { return 2 * k * kRounding * std::abs(v) + 2 * kUnderflow; }
// At least exp(e) - 1, for e >= 0.
constexpr double growth(double e) { return e < 1 ? e * (1 + e) : std::expm1(std::fmin(e, 700)); }

}  // namespace bound

constexpr Bound operator-(const Bound& a) {
  Bound r = a;
  r.v = -a.v;
  r.other = -a.other;
  return r;
}
constexpr Bound operator+(const Bound& a, const Bound& b) {
  return bound::apply(a, b, [](const Bound& p, const Bound& q) {
    const double v = p.v + q.v;  // cannot underflow inexactly
    return bound::settled(v, p.e + q.e + (bound::exact(p, q, v) ? 0 : kRounding * std::abs(v)));
  });
}
constexpr Bound operator-(const Bound& a, const Bound& b) { return a + -b; }
constexpr Bound operator*(const Bound& a, const Bound& b) {
  return bound::apply(a, b, [](const Bound& p, const Bound& q) {
    const double v = p.v * q.v;
    if (bound::exact(p, q, v)) return bound::settled(v, 0);
    if (std::isinf(v)) [[unlikely]]
      return bound::may_be_zero(p) || bound::may_be_zero(q) ? bound::with_other(Bound(v), Bound(NAN)) : Bound(v);
    // An exact zero makes an exact zero; of an uncertain factor only its error is left then.
    if ((p.v == 0 && p.e == 0) || (q.v == 0 && q.e == 0)) return bound::settled(v, 0);
    const double e = std::abs(p.v) * q.e + std::abs(q.v) * p.e + p.e * q.e;
    return bound::settled(v, e + kRounding * std::abs(v) + kUnderflow);
  });
}
constexpr Bound operator/(const Bound& a, const Bound& b) {
  return bound::apply(a, b, [](const Bound& p, const Bound& q) {
    const double v = p.v / q.v;
    int exponent = 0;
    // By a power of two, a reciprocal is exact too.
    if (bound::exact(p, q, v) && (v == 0 || std::abs(std::frexp(q.v, &exponent)) == 0.5))
      return bound::settled(v, 0);
    const double nearest = std::abs(q.v) - q.e;
    const double e = nearest > 0 ? (p.e + std::abs(v) * q.e) / nearest : bound::kUnbounded;
    return bound::settled(v, e + bound::ulps(kFunctionError.divide, v));
  });
}

constexpr Bound& operator+=(Bound& a, const Bound& b) { return a = a + b; }

constexpr Bound exp_(const Bound& a) {
  return bound::apply(a, [](const Bound& p) {
    const double v = std::exp(p.v);
    return bound::settled(v, v * bound::growth(p.e) + bound::ulps(kFunctionError.exp, v) + kExpFlush);
  });
}
constexpr Bound log_(const Bound& a) {
  return bound::apply(a, [](const Bound& p) {
    const double v = std::log(p.v), nearest = p.v - p.e;
    return bound::settled(
        v, (nearest > 0 ? p.e / nearest : bound::kUnbounded) + bound::ulps(kFunctionError.log, v));
  });
}
constexpr Bound exp2_(const Bound& a) {
  return bound::apply(a, [](const Bound& p) {
    const double v = std::exp2(p.v);
    return bound::settled(
        v, v * bound::growth(std::numbers::ln2 * p.e) + bound::ulps(kFunctionError.exp2, v) + kExpFlush);
  });
}
constexpr Bound log2_(const Bound& a) {
  return bound::apply(a, [](const Bound& p) {
    const double v = std::log2(p.v), nearest = p.v - p.e;
    const double moved = nearest > 0 ? p.e / nearest / std::numbers::ln2 : bound::kUnbounded;
    return bound::settled(v, moved + kLog2Error * std::fmax(1, std::abs(v)));
  });
}
constexpr Bound log1p_(const Bound& a) {
  return bound::apply(a, [](const Bound& p) {
    const double v = std::log1p(p.v), nearest = 1 + p.v - p.e;
    return bound::settled(
        v, (nearest > 0 ? p.e / nearest : bound::kUnbounded) + bound::ulps(kFunctionError.log1p, v));
  });
}
constexpr Bound sqrt_(const Bound& a) {
  return bound::apply(a, [](const Bound& p) {
    if (p.v == 0 && p.e == 0) return p;
    const double v = std::sqrt(p.v), below = std::sqrt(std::fmax(p.v - p.e, 0));
    return bound::settled(v,
                          (v > 0 ? p.e / (v + below) : std::sqrt(p.e)) + bound::ulps(kFunctionError.sqrt, v));
  });
}
constexpr Bound rsqrt_(const Bound& a) {
  return bound::apply(a, [](const Bound& p) {
    const double v = 1 / std::sqrt(p.v), nearest = p.v - p.e;
    const double e = nearest > 0 ? 0.5 * p.e / (nearest * std::sqrt(nearest)) : bound::kUnbounded;
    return bound::settled(v, e + bound::ulps(kFunctionError.rsqrt, v));
  });
}
// Over an interval of half-width e, tanh' and sigmoid' grow at most by exp(2e) and exp(e).
constexpr Bound tanh_(const Bound& a) {
  return bound::apply(a, [](const Bound& p) {
    const double v = std::tanh(p.v), c = std::cosh(std::fmin(std::abs(p.v), 350));
    return bound::settled(v, bound::growth(2 * p.e) / (2 * c * c) + kTanhAbsoluteError);
  });
}
// Both move by no more than their argument; near their zeros the error of a rounded argument would be relative to 1.
constexpr Bound cos_(const Bound& a) {
  return bound::apply(a, [](const Bound& p) { return bound::settled(std::cos(p.v), std::fmin(p.e, 2) + bound::ulps(kFunctionError.cosine, 1)); });
}
constexpr Bound sin_(const Bound& a) {
  return bound::apply(a, [](const Bound& p) { return bound::settled(std::sin(p.v), std::fmin(p.e, 2) + bound::ulps(kFunctionError.cosine, 1)); });
}
// erf' is largest at the near end of the interval.
constexpr Bound erf_(const Bound& a) {
  return bound::apply(a, [](const Bound& p) {
    const double v = std::erf(p.v), nearest = std::fmax(std::abs(p.v) - p.e, 0);
    const double slope = 2 * std::numbers::inv_sqrtpi * std::exp(-nearest * nearest);
    return bound::settled(v, std::fmin(slope * p.e, 2) + bound::ulps(kFunctionError.erf, v));
  });
}
constexpr Sigmoid<Bound> sigmoid_(const Bound& a) {
  const auto certain = [](const Bound& p) {
    const Sigmoid<double> s = sigmoid_(p.v);
    const double moved = s.plus * s.minus * bound::growth(p.e);
    return Sigmoid<Bound>{bound::settled(s.plus, moved + bound::ulps(kFunctionError.sigmoid, s.plus) + kExpFlush),
                          bound::settled(s.minus, moved + bound::ulps(kFunctionError.sigmoid, s.minus) + kExpFlush)};
  };
  Sigmoid<Bound> r = certain(a);
  if (a.ambiguous) [[unlikely]] {  // not by recursion: a GPU's stacks are sized for what the compiler can foresee
    const Sigmoid<Bound> other = certain(bound::alternative(a));
    r = {bound::with_other(r.plus, other.plus), bound::with_other(r.minus, other.minus)};
  }
  return r;
}

constexpr Bound abs_(const Bound& a) {
  return bound::apply(a, [](const Bound& p) { return Bound(std::abs(p.v), p.e); });
}
// No decision: the result lies between the larger of the lower ends and the larger of the upper ends. So the smaller value
// counts as far as it reaches beyond the larger one's interval, and not at all where it cannot be the maximum: the
// maximum of a row is as certain as its largest elements.
constexpr Bound max_(const Bound& a, const Bound& b) {
  return bound::apply(a, b, [](const Bound& p, const Bound& q) {
    const Bound &above = p.v < q.v ? q : p, &below = p.v < q.v ? p : q;
    if (!std::isfinite(p.v) || !std::isfinite(q.v)) return Bound(max_(p.v, q.v), std::fmax(p.e, q.e));
    return Bound(above.v, std::fmax(above.e, below.e - (above.v - below.v)));
  });
}
constexpr Bound min_(const Bound& a, const Bound& b) { return -max_(-a, -b); }

struct Decision {
  bool holds = false;
  bool ambiguous = false;
};
constexpr Decision less_(const Bound& a, const Bound& b) {
  const double e = a.e + b.e;
  return {.holds = a.v < b.v, .ambiguous = e > 0 && std::abs(a.v - b.v) <= e};
}
constexpr Bound select_(Decision decision, const Bound& a, const Bound& b) {
  const Bound& taken = decision.holds ? a : b;
  return decision.ambiguous ? bound::with_other(taken, decision.holds ? b : a) : taken;
}

constexpr double value(const Bound& a) { return a.v; }
constexpr bool is_nan(const Bound& a) { return std::isnan(a.v); }
constexpr Bound detach(const Bound& a) { return a; }

// A rounding point: what is read back is one of the numbers between the roundings of both ends of the interval, most
// often one number. Its error is then zero, and sums over stored numbers need not allow half an ulp for each.
constexpr Bound store_as(DType type, const Bound& a) {
  return bound::apply(a, [type](const Bound& p) {
    const double v = rounded(type, p.v), low = rounded(type, p.v - p.e), high = rounded(type, p.v + p.e);
    if (low == high || std::isnan(p.v)) return Bound(v);
    if (std::isfinite(low) && std::isfinite(high)) return bound::settled(v, std::fmax(high - v, v - low));
    return Bound(p.v, p.e < bound::kUnbounded ? bound::kUnbounded : p.e);  // infinite or not
  });
}

}  // namespace fla::reference
