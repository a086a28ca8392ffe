// Does the bound enclose what fp32 gives? The same text in Bound and in a model of a kernel, on the same
// inputs.
#pragma once

#include <cmath>

#include "reference/tests/call.h"

namespace fla::reference::test {

// Error of one stored fp32 value as a share of what is allowed: above 1 it must be refused.
inline double share_used(float got, const Bound& expected) {
  const auto value = static_cast<double>(got);
  if (std::isnan(expected.v)) return std::isnan(value) ? 0 : HUGE_VAL;
  if (std::isinf(expected.v)) return value == expected.v ? 0 : HUGE_VAL;
  const bool accepted = rounded(DType::f32, expected.v - expected.e) <= value &&
                        value <= rounded(DType::f32, expected.v + expected.e);
  if (!accepted) return HUGE_VAL;
  return expected.e > 0 ? std::abs(value - expected.v) / (expected.e + kRounding * std::abs(expected.v)) : 0;
}

// The largest share over all elements of all outputs of the call, or of one of them. `inputs` has the real
// numbers.
template <class Model, class A>
double share_used(const A& args, const Extents& extents, const Names& with, const Tensors<double>& inputs,
                  const std::string& only = "") {
  A bounded = args, modelled = args;
  Tensors<Bound> expected;
  Tensors<Model> got;
  allocate(bounded, extents, with, expected);
  allocate(modelled, extents, with, got);
  copy_inputs(inputs, expected);
  copy_inputs(inputs, got);
  evaluate<Bound>(bounded);
  evaluate<Model>(modelled);
  double worst = 0;
  for (const std::string& name : expected.outputs) {
    if (expected.integers.count(name) || (!only.empty() && name != only)) continue;
    for (size_t i = 0; i < expected[name].size(); ++i)
      worst = std::fmax(worst, share_used(static_cast<float>(value(got[name][i])), expected[name][i]));
  }
  return worst;
}

template <class A>
Tensors<double> normal_inputs(A args, const Extents& extents, const Names& with, double mean = 0) {
  std::mt19937_64 random(7);
  Tensors<double> inputs;
  allocate(args, extents, with, inputs);
  for (const std::string& name : inputs.inputs)
    if (!inputs.integers.count(name)) fill_normal(inputs[name], random, mean);
  return inputs;
}

}  // namespace fla::reference::test
