// The terms that losses on log-probabilities share.
#pragma once

#include "common/math.cuh"

namespace fla::detail {

// e^x for any x; beyond 88 without the correction that would make NaN of infinity.
FLA_DEVICE float any_exp(float x) { return x > 88.0f ? math::exp2(x * math::kLog2E) : math::exp(x); }

// The estimator e^D - D - 1 of KL(policy || reference), D = ref_logp - logp, and its derivative by D.
FLA_DEVICE float k3(float apart) { return any_exp(apart) - apart - 1.0f; }
FLA_DEVICE float k3_slope(float apart) { return any_exp(apart) - 1.0f; }

}  // namespace fla::detail
