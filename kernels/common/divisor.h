// Division of block indices by a number that only the host knows. Dividing by it on the GPU takes about 20 instructions,
// three of them on the unit that formulas need for exponentials and reciprocals, before the first load is asked for;
// this takes three.
#pragma once

#include <bit>
#include <cstdint>

#include "common/gpu.h"

namespace fla::detail {

// Exact for indices below 2^31, which every index in a grid is: with s bits of the divisor d rounded up to a power of two
// and m = ceil(2^(31+s) / d), n m / 2^(31+s) exceeds n / d by less than n / (2^31 d), which is less than 1 / d.
class Divisor {
 public:
  Divisor() = default;
  // d >= 1. No index reaches what is 2^31 or more: the quotient is 0.
  explicit Divisor(int64_t d) : value_(static_cast<uint32_t>(d)) {
    if (d > INT32_MAX) {
      multiplier_ = 0;
      return;
    }
    shift_ = static_cast<uint32_t>(std::bit_width(static_cast<uint64_t>(d) - 1));
    multiplier_ = static_cast<uint32_t>(((uint64_t{1} << (31 + shift_)) - 1) / static_cast<uint64_t>(d) + 1);
  }

  FLA_HOST_DEVICE uint32_t value() const { return value_; }
  FLA_HOST_DEVICE uint32_t quotient(uint32_t n) const {
    return static_cast<uint32_t>((uint64_t{2 * n} * multiplier_) >> 32) >> shift_;
  }

 private:
  uint32_t value_ = 1, multiplier_ = uint32_t{1} << 31, shift_ = 0;
};

}  // namespace fla::detail
