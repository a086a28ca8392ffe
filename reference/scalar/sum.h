// sum<S>(n, f, lanes): f(0) + ... + f(n - 1), the only reduction in the references. What it means depends on
// the scalar: an accurate sum, a sum with the error that `lanes` accumulators and a tree may make, or a model
// of one.
#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>
#include <cstring>

#include "reference/scalar/bound.h"
#include "reference/scalar/dual.h"
#include "reference/scalar/single.h"

namespace fla::reference {
namespace summation {

// Sums of sums of this many terms: the depth, and with it the error, stays near its square root's.
inline constexpr int64_t kBlock = 128;

// double and Dual: their own error must not be seen beside u.
template <class S>
struct By {
  template <class F>
  static S run(int64_t n, F&& f, int64_t) {
    S total(0.0);
    for (int64_t first = 0; first < n; first += kBlock) {
      const int64_t last = std::min(n, first + kBlock);
      S block(0.0);
      for (int64_t i = first; i < last; ++i) block = block + f(i);
      total = total + block;
    }
    return total;
  }
};

// The lowest bit of a number, as an exponent; zero has none.
inline int lowest_bit(double v) {
  uint64_t bits;
  std::memcpy(&bits, &v, sizeof bits);
  const auto exponent = static_cast<int>((bits >> 52) & 0x7ff);
  const uint64_t significand = (bits & ((uint64_t{1} << 52) - 1)) | (uint64_t{exponent != 0} << 52);
  if (significand == 0) return 4096;
  return (exponent != 0 ? exponent : 1) - 1075 + __builtin_ctzll(significand);
}

// Whether every partial sum of exact terms, in any order, is a number of 24 bits: all are multiples of one
// power of two and their magnitudes add up to at most 2^24 of it.
inline bool all_orders_exact(int lowest, double magnitude) {
  return magnitude == 0 || (lowest >= -149 && magnitude <= std::ldexp(1.0, lowest + 24));
}

template <>
struct By<Bound> {
  template <class F>
  static Bound run(int64_t n, F&& f, int64_t lanes) {
    double total = 0, error = 0, magnitude = 0;
    int lowest = 4096;
    for (int64_t first = 0; first < n; first += kBlock) {
      const int64_t last = std::min(n, first + kBlock);
      double block = 0;
      for (int64_t i = first; i < last; ++i) {
        const Bound term = f(i);
        block += term.v;
        error += term.e;
        magnitude += std::abs(term.v);
        lowest = std::min(lowest, lowest_bit(term.v));
        // Undecided terms: the sum may lie anywhere between the branches.
        if (term.ambiguous) [[unlikely]]
          error += std::abs(term.other - term.v) + term.other_e;
      }
      total += block;
    }
    if (error == 0 && all_orders_exact(lowest, magnitude)) return bound::settled(total, 0);
    return bound::settled(total, error + reduction_factor(n, lanes) * kRounding * magnitude);
  }
};

template <>
struct By<Single> {
  template <class F>
  static Single run(int64_t n, F&& f, int64_t lanes) {
    constexpr int64_t kMostLanes = 1024;
    float partial[kMostLanes];
    const auto enough = static_cast<int64_t>(std::bit_ceil(static_cast<uint64_t>(n)));
    int64_t width = std::min({std::max(lanes, kBlockLanes), enough, kMostLanes});
    std::fill(partial, partial + width, 0.0f);
    for (int64_t i = 0; i < n; ++i) partial[i % width] += f(i).v;
    for (width /= 2; width > 0; width /= 2)
      for (int64_t i = 0; i < width; ++i) partial[i] += partial[i + width];
    return single::of<Accumulation::tree>(partial[0]);
  }
};

template <>
struct By<SingleSerial> {
  template <class F>
  static SingleSerial run(int64_t n, F&& f, int64_t) {
    SingleSerial total;
    for (int64_t i = 0; i < n; ++i) total = total + f(i);
    return total;
  }
};

template <>
struct By<SingleBf16Sum> {
  template <class F>
  static SingleBf16Sum run(int64_t n, F&& f, int64_t) {
    SingleBf16Sum total;
    for (int64_t i = 0; i < n; ++i) total = store_as(DType::bf16, total + f(i));
    return total;
  }
};

}  // namespace summation

template <class S, class F>
S sum(int64_t n, F&& f, int64_t lanes = kBlockLanes) {
  return summation::By<S>::run(n, std::forward<F>(f), lanes);
}

}  // namespace fla::reference
