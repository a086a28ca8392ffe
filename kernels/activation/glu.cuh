// What the gated units' two directions share: the formulas of a unit as elementwise() takes them.
#pragma once

#include "activation/gates.cuh"
#include "common/workspace.h"
#include "fla/activation.h"

namespace fla::detail {

// A gate times y. dz times the bounded slope first: dz y may overflow where dx does not.
template <class Gate>
struct Unit {
  Gate gate;

  template <class Forms>
  FLA_DEVICE void operator()(Forms forms, const float (&in)[2], float (&out)[1]) const {
    out[0] = gate(forms, in[0]).value * in[1];
  }
  template <class Forms>
  FLA_DEVICE void operator()(Forms forms, const float (&in)[3], float (&out)[3]) const {
    const float y = in[1], dz = in[2];
    const Slope a = gate(forms, in[0]);
    out[0] = dz * a.slope * y;
    out[1] = dz * a.value;
    out[2] = a.value * y;
  }
};

struct ClampedSwiglu {
  float alpha, limit, offset;

  template <class Forms>
  FLA_DEVICE Slope gate(Forms forms, float x) const {
    const float g = math::min_with_nan(x, limit);
    const math::Sigmoid s = forms.sigmoid(alpha * g);
    const float value = g * s.plus;
    return {value, x > limit ? 0.0f : fmaf(alpha * value, s.minus, s.plus)};
  }
  FLA_DEVICE float up(float y) const {
    return math::min_with_nan(math::max_with_nan(y, -limit), limit) + offset;
  }

  template <class Forms>
  FLA_DEVICE void operator()(Forms forms, const float (&in)[2], float (&out)[1]) const {
    out[0] = gate(forms, in[0]).value * up(in[1]);
  }
  template <class Forms>
  FLA_DEVICE void operator()(Forms forms, const float (&in)[3], float (&out)[3]) const {
    const float y = in[1], dz = in[2], u = up(y);
    const Slope a = gate(forms, in[0]);
    out[0] = dz * a.slope * u;
    out[1] = fabsf(y) > limit ? 0.0f : dz * a.value;
    out[2] = a.value * u;
  }
};

inline Status check_unit(GatedUnit kind) {
  const auto value = static_cast<int>(kind);
  if (value >= 0 && value <= static_cast<int>(GatedUnit::clamped_swiglu)) return {};
  return error(StatusCode::invalid_argument, "kind: unknown value %d", value);
}

template <class Body>
Status with_unit(GatedUnit kind, const GluParameters& p, Body&& body) {
  switch (kind) {
    case GatedUnit::swiglu: return body(Unit<SwishGate>{});
    case GatedUnit::sigmoidglu: return body(Unit<SigmoidGate>{});
    case GatedUnit::powglu: return body(Unit<PowGate>{{p.power}});
    case GatedUnit::geglu: return body(Unit<GeluTanhGate>{});
    default: return body(ClampedSwiglu{p.alpha, p.limit, p.offset});
  }
}

}  // namespace fla::detail
