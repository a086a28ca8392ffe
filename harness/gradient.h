// Proof of a hand-written backward against the forward text it belongs to
// (reliability-and-numerics.md 3.2, 3.3): <v, J u> from Dual numbers against <J^T v, u> from the backward, in
// double, nothing rounded anywhere. A wrong entry is named: small Jacobians are taken column by column, larger ones
// searched by bisection.
#pragma once

#include <string>
#include <vector>

#include "harness/case.h"
#include "harness/problem.h"
#include "harness/result.h"

namespace fla::harness {

// A forward problem and the backward problem of the same call. Float tensors are f64 here, so that rounding
// to the storage dtype is the identity and derivatives are those of the formula. Fused directions, whose
// gradients are outputs of the forward itself, are their own backward.
struct GradientPair {
  Problem forward, backward;
  bool fused = false;
  std::string defined;  // Direction::defined_backward
};

// The pair that a case of either direction speaks of, with fewer rows where it is long. A fused direction is
// passed twice.
GradientPair gradient_pair(const Case&, const Direction& forward, const Direction& backward);
// Whether a direction's outputs include the gradients of its own inputs.
bool is_fused(const Direction&);

// One check "gradient:<input>" per differentiable input, and "gradient:joint" for all at once; where inputs times
// outputs are few also "jacobian:<input>", entry by entry. With `differences` also "differences:<input>": by steps of
// the forward text, which share nothing with Dual numbers.
std::vector<Check> prove_gradients(const GradientPair&, bool differences = false);

}  // namespace fla::harness
