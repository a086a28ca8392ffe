// Proof of a hand-written backward against the forward text it belongs to
// (reliability-and-numerics.md 3.2, 3.3): <v, J u> from Dual numbers against <J^T v, u> from the backward, in
// double, nothing rounded anywhere.
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
};

// The pair that a case of either direction speaks of. Presence follows the names: a backward input named like
// a forward tensor is that tensor, d<name> is the gradient of <name>.
GradientPair pair_from_forward(const Case& forward, const Direction& backward);
GradientPair pair_from_backward(const Direction& forward, const Case& backward);
GradientPair fused_pair(const Case&);
bool is_fused(const Direction&);

// One check "gradient:<input>" per differentiable input, and "gradient:joint" for all at once.
std::vector<Check> prove_gradients(const GradientPair&);

}  // namespace fla::harness
