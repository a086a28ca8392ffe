// double as a scalar of the references: the answer. long double and std::complex take the same templates.
#pragma once

#include <cmath>
#include <cstdint>
#include <type_traits>

#include "reference/scalar/storage.h"

namespace fla::reference {

constexpr double exp_(double a) { return std::exp(a); }
constexpr double log_(double a) { return std::log(a); }
constexpr double exp2_(double a) { return std::exp2(a); }
constexpr double log2_(double a) { return std::log2(a); }
constexpr double log1p_(double a) { return std::log1p(a); }
constexpr double sqrt_(double a) { return std::sqrt(a); }
constexpr double rsqrt_(double a) { return 1 / std::sqrt(a); }
constexpr double tanh_(double a) { return std::tanh(a); }
constexpr double cos_(double a) { return std::cos(a); }
constexpr double sin_(double a) { return std::sin(a); }
constexpr double erf_(double a) { return std::erf(a); }
constexpr double abs_(double a) { return std::abs(a); }

// NaN stays, as it must in a kernel (std::fmax drops it).
constexpr double max_(double a, double b) { return std::isnan(a) || std::isnan(b) ? a + b : a > b ? a : b; }
constexpr double min_(double a, double b) { return -max_(-a, -b); }

// sigmoid(x) and sigmoid(-x), each to full relative accuracy: 1 - sigmoid(x) would cancel.
template <class S>
struct Sigmoid {
  S plus, minus;
};
constexpr Sigmoid<double> sigmoid_(double a) {
  const double e = std::exp(-std::abs(a)), r = 1 / (1 + e);
  if (a >= 0) return {r, e * r};
  return {e * r, r};
}

// Comparisons give what select_() takes: a plain bool here, a Decision for Bound.
constexpr bool less_(double a, double b) { return a < b; }
template <class S>
constexpr S select_(bool condition, const S& a, const std::type_identity_t<S>& b) {
  return condition ? a : b;
}

constexpr double value(double a) { return a; }
constexpr bool is_nan(double a) { return std::isnan(a); }

// The same number without its derivative.
constexpr double detach(double a) { return a; }

// The number as stored and read back, at a rounding point that the operator declares. Outputs are not rounded
// here: the harness accepts every rounding of a number within its bound.
constexpr double store_as(DType type, double a) { return rounded(type, a); }

}  // namespace fla::reference
