// What kernels may do with signals of 16 bits and not with fp32: a rounding that the stored result does not show.
#pragma once

#include <numbers>

#include "fla/tensor.h"
#include "reference/scalar/bound.h"

namespace fla::reference {

// The argument of an exponential or a sigmoid that is formed in base 2: x log2(e) is rounded, once more than x.
template <class S>
constexpr S in_base_2(DType signal, const S& x) {
  return size_of(signal) == 2 ? x * S(std::numbers::log2e) * S(std::numbers::ln2) : x;
}

// The same number, known to this relative error only.
template <class S>
constexpr S loosened(const S& a, double) {
  return a;
}
constexpr Bound loosened(const Bound& a, double relative) {
  return bound::apply(a, [relative](const Bound& p) { return bound::settled(p.v, p.e + relative * std::abs(p.v)); });
}

// log(1 + e) by a shorter polynomial.
template <class S>
constexpr S log1p_for(DType signal, const S& e) {
  return size_of(signal) == 2 ? loosened(log1p_(e), kShortLog1pError) : log1p_(e);
}

}  // namespace fla::reference
