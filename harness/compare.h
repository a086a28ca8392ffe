// Interval acceptance (reliability-and-numerics.md 2.4): a stored value is right iff a correct rounding of some
// number within the derived bound of the answer could have produced it. No tolerance exists anywhere.
#pragma once

#include <vector>

#include "harness/problem.h"
#include "harness/result.h"
#include "reference/scalar/scalars.h"

namespace fla::harness {

// round_to(dtype, y.v - y.e) <= got <= round_to(dtype, y.v + y.e) on the extended reals; NaN matches only NaN. An
// `ambiguous` bound also accepts its other branch.
bool accepts(DType, double got, const reference::Bound& expected);

// Judges one output tensor. `got` and `expected` are parallel, dense. Fails on any element outside, on a NaN bound,
// on tensors of different or zero length. Records worst element, ulps, bias, share of the bound used.
Check compare(const std::string& name, DType, const std::vector<int64_t>& size, const std::vector<double>& got,
              const std::vector<reference::Bound>& expected);
// Integer tensors must be equal.
Check compare(const std::string& name, const std::vector<int64_t>& size, const std::vector<int64_t>& got,
              const std::vector<int64_t>& expected);

// The vacuity guards (2.16): mostly zeros, too few distinct values, equal to an input, ambiguous beyond 1 %. Returns a
// mistrusted check, or a passed one. `allowed_zero_share` comes from the fill.
Check trust(const std::string& name, DType, const std::vector<reference::Bound>& expected, double allowed_zero_share);

}  // namespace fla::harness
