// The gate of a gated norm: A(g) = g sigmoid(g) or sigmoid(g), and its slope.
#pragma once

#include "common/math.cuh"

namespace fla::detail {

FLA_DEVICE float gate_value(float g, bool swish) {
  const float s = math::sigmoid(g).plus;
  return swish ? g * s : s;
}

struct GateTerms {
  float value, slope;
};
// sigmoid(-g) comes from the exponential too: 1 - sigmoid(g) would cancel.
FLA_DEVICE GateTerms gate_terms(float g, bool swish) {
  const math::Sigmoid s = math::sigmoid(g);
  return {swish ? g * s.plus : s.plus, s.plus * (swish ? fmaf(g, s.minus, 1.0f) : s.minus)};
}

}  // namespace fla::detail
