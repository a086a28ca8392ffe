// The gate of a gated norm: A(g) = g sigmoid(g) or sigmoid(g), and its slope. kShort: g is stored in 16 bits.
#pragma once

#include "common/math.cuh"

namespace fla::detail {

template <bool kShort>
FLA_DEVICE float gate_value(float g, bool swish) {
  const float s = math::Forms<kShort>::sigmoid(g).plus;
  return swish ? g * s : s;
}

struct GateTerms {
  float value, slope;
};
// sigmoid(-g) comes from the exponential too: 1 - sigmoid(g) would cancel.
template <bool kShort>
FLA_DEVICE GateTerms gate_terms(float g, bool swish) {
  const math::Sigmoid s = math::Forms<kShort>::sigmoid(g);
  const float factor = swish ? g : 1.0f;
  return {factor * s.plus, s.plus * fmaf(factor, s.minus, swish ? 1.0f : 0.0f)};
}

}  // namespace fla::detail
