// What stored bits mean and which of them are right: the part of the judge that is compiled for GPUs too.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>

#include "fla/tensor.h"

namespace fla::harness {

constexpr double f16_value(uint16_t bits) {
  const int exponent = (bits >> 10) & 31, fraction = bits & 0x3ff;
  double magnitude = 0;
  if (exponent == 31) magnitude = fraction ? NAN : HUGE_VAL;
  else if (exponent == 0) magnitude = std::ldexp(static_cast<double>(fraction), -24);
  else magnitude = std::ldexp(static_cast<double>(fraction + 1024), exponent - 25);
  return bits & 0x8000 ? -magnitude : magnitude;
}

constexpr double bf16_value(uint16_t bits) {
  return static_cast<double>(std::bit_cast<float>(static_cast<uint32_t>(bits) << 16));
}

// Whether `got` is a correct rounding of some number in [value - error, value + error], on the extended reals. NaN matches
// only NaN; an infinite answer is one value, not an interval: inf - inf below would be NaN.
template <class Round>
constexpr bool rounds_to(double got, double value, double error, Round round) {
  if (std::isnan(value)) return std::isnan(got);
  if (std::isnan(error) || error < 0) return false;
  if (std::isinf(value)) return got == round(value);  // 8-bit formats have no infinity
  return round(value - error) <= got && got <= round(value + error);
}

}  // namespace fla::harness
