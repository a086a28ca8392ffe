// The two sides that a gradient proof sets against each other: the hand-written backward, J^T v, and the forward
// text, whose tangents J u come from Dual numbers or from differences.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "harness/evaluate.h"
#include "harness/gradient.h"

namespace fla::harness {

using Vector = std::vector<double>;

// Independent +-1: every entry weighs the same, none is near zero.
class Signs {
 public:
  explicit Signs(uint64_t seed) : state_(seed * 0x9e3779b97f4a7c15u + 1) {}
  double next();
  Vector vector(size_t n);

 private:
  uint64_t state_;
};

struct Gradient {
  std::string name;            // of the input
  int input = -1, field = -1;  // in the forward, and d<name> in the backward
};

struct Cotangent {
  int output = -1, field = -1;  // in the forward, and d<name> in the backward; field -1: implied to be 1
};

struct Sides {
  explicit Sides(const GradientPair&);

  // A weight for every element of every output that has a cotangent, parallel to `cotangents`.
  std::vector<Vector> draw_weights(Signs&) const;
  // A direction for these inputs. Infinite inputs (masked logits) stay where they are: nothing varies around them.
  std::vector<Vector> draw_directions(const std::vector<Gradient>& inputs, Signs&) const;

  // J^T v. Inputs, outputs and saved tensors of the forward stand under their own names, weights as d<output>.
  template <class S>
  Evaluation<S> backward(const std::vector<Vector>& weights) const;
  // J u by Dual numbers, u given for some inputs and zero for the others.
  Evaluation<reference::Dual> tangents(const std::vector<Gradient>& inputs,
                                       const std::vector<Vector>& directions) const;

  int64_t input_elements() const, output_elements() const;  // of those with a gradient, of those with a cotangent
  // "dx[3,5]": the entry of the backward's tensor that belongs to element k of the input.
  std::string entry(const Gradient&, size_t k) const;

  const GradientPair& pair;
  std::vector<Gradient> gradients;
  std::vector<Cotangent> cotangents;
  Evaluation<double> forward;
};

// A check for each of these gradients: steps of the forward text in double, nothing shared with Dual
// (gradient_differences.cpp).
std::vector<Check> prove_by_differences(const Sides&);

}  // namespace fla::harness
