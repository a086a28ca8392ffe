// The storage dtypes as number formats. The reference has its own rounding so that a mistake in the harness's
// would be seen.
#pragma once

#include <cmath>
#include <limits>

#include "fla/tensor.h"

namespace fla::reference {

struct Format {
  int precision = 53;           // bits of the significand, the hidden one included
  int lowest_exponent = -1074;  // of the smallest subnormal
  double largest = std::numeric_limits<double>::max();
};

constexpr Format format_of(DType type) {
  switch (type) {
    case DType::f32:
      return {24, -149, 0x1.fffffep127};
    case DType::f16:
      return {11, -24, 65504};
    case DType::bf16:
      return {8, -133, 0x1.fep127};
    case DType::f8e4m3:
      return {4, -9, 448};
    default:
      return {};
  }
}

// To nearest even; overflow goes to infinity, or to the largest number where there is no infinity (8 bits).
constexpr double rounded(DType type, double value) {
  if (type == DType::f32) return static_cast<double>(static_cast<float>(value));
  const Format f = format_of(type);
  if (type == DType::f8e4m3 && std::abs(value) > f.largest) return std::copysign(f.largest, value);
  if (f.precision == 53 || !std::isfinite(value) || value == 0) return value;
  int exponent = 0;
  std::frexp(value, &exponent);
  const int unit = exponent - f.precision > f.lowest_exponent ? exponent - f.precision : f.lowest_exponent;
  const double nearest = std::ldexp(std::nearbyint(std::ldexp(value, -unit)), unit);
  return std::abs(nearest) <= f.largest ? nearest : std::copysign(HUGE_VAL, value);
}

}  // namespace fla::reference
