// What kernels may do with signals of 16 bits and not with fp32: a rounding that the stored result does not show.
#pragma once

#include <numbers>

#include "fla/tensor.h"

namespace fla::reference {

// The argument of an exponential or a sigmoid that is formed in base 2: x log2(e) is rounded, once more than x.
template <class S>
S in_base_2(DType signal, const S& x) {
  return size_of(signal) == 2 ? x * S(std::numbers::log2e) * S(std::numbers::ln2) : x;
}

}  // namespace fla::reference
