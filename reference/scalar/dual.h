// Dual: a value and its derivative along one direction, in double. Running a forward text on it gives J u.
#pragma once

#include <numbers>

#include "reference/scalar/real.h"

namespace fla::reference {

struct Dual {
  double v = 0, d = 0;

  constexpr Dual() = default;
  constexpr Dual(double value) : v(value) {}
  constexpr Dual(double value, double derivative) : v(value), d(derivative) {}
};

namespace dual {

// What does not vary contributes nothing, whatever it is multiplied with: masked logits are -inf.
inline double times(double derivative, double factor) { return derivative == 0 ? 0 : derivative * factor; }

}  // namespace dual

inline Dual operator-(const Dual& a) { return {-a.v, -a.d}; }
inline Dual operator+(const Dual& a, const Dual& b) { return {a.v + b.v, a.d + b.d}; }
inline Dual operator-(const Dual& a, const Dual& b) { return {a.v - b.v, a.d - b.d}; }
inline Dual operator*(const Dual& a, const Dual& b) {
  return {a.v * b.v, dual::times(a.d, b.v) + dual::times(b.d, a.v)};
}
inline Dual operator/(const Dual& a, const Dual& b) {
  const double q = a.v / b.v;
  return {q, (a.d - dual::times(b.d, q)) / b.v};
}
inline Dual& operator+=(Dual& a, const Dual& b) { return a = a + b; }

inline Dual exp_(const Dual& a) {
  const double v = std::exp(a.v);
  return {v, dual::times(a.d, v)};
}
inline Dual log_(const Dual& a) { return {std::log(a.v), dual::times(a.d, 1 / a.v)}; }
inline Dual exp2_(const Dual& a) {
  const double v = std::exp2(a.v);
  return {v, dual::times(a.d, v * std::numbers::ln2)};
}
inline Dual log2_(const Dual& a) { return {std::log2(a.v), dual::times(a.d, 1 / (a.v * std::numbers::ln2))}; }
inline Dual log1p_(const Dual& a) { return {std::log1p(a.v), dual::times(a.d, 1 / (1 + a.v))}; }
inline Dual sqrt_(const Dual& a) {
  const double v = std::sqrt(a.v);
  return {v, dual::times(a.d, 0.5 / v)};
}
inline Dual rsqrt_(const Dual& a) {
  const double v = 1 / std::sqrt(a.v);
  return {v, dual::times(a.d, -0.5 * v / a.v)};
}
inline Dual tanh_(const Dual& a) {
  const double v = std::tanh(a.v), c = std::cosh(a.v);
  return {v, dual::times(a.d, 1 / (c * c))};
}
inline Dual cos_(const Dual& a) { return {std::cos(a.v), dual::times(a.d, -std::sin(a.v))}; }
inline Dual sin_(const Dual& a) { return {std::sin(a.v), dual::times(a.d, std::cos(a.v))}; }
inline Dual erf_(const Dual& a) {
  return {std::erf(a.v), dual::times(a.d, 2 * std::numbers::inv_sqrtpi * std::exp(-a.v * a.v))};
}
inline Sigmoid<Dual> sigmoid_(const Dual& a) {
  const Sigmoid<double> s = sigmoid_(a.v);
  const double d = dual::times(a.d, s.plus * s.minus);
  return {{s.plus, d}, {s.minus, -d}};
}

// At 0 the derivative of |x| is 0 here; tests keep away from it.
inline Dual abs_(const Dual& a) { return a.v < 0 ? -a : a.v > 0 ? a : Dual(std::abs(a.v)); }
// Equal operands: the first one's derivative.
inline Dual max_(const Dual& a, const Dual& b) {
  if (std::isnan(a.v) || std::isnan(b.v)) return a + b;
  return b.v > a.v ? b : a;
}
inline Dual min_(const Dual& a, const Dual& b) { return -max_(-a, -b); }
inline bool less_(const Dual& a, const Dual& b) { return a.v < b.v; }

inline double value(const Dual& a) { return a.v; }
inline bool is_nan(const Dual& a) { return std::isnan(a.v); }
inline Dual detach(const Dual& a) { return {a.v, 0}; }

// Roundings have no derivative to speak of: the proof of a backward is about the formula.
inline Dual store_as(DType, const Dual& a) { return a; }

}  // namespace fla::reference
