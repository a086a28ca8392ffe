// The activations: a(x), and a(x) with a'(x). Unary operators and gated units are made of the same ones. `forms` are the
// math::Forms of x's dtype.
#pragma once

#include "common/math.cuh"

namespace fla::detail {

struct Slope {
  float value, slope;  // a(x), a'(x)
};

struct SigmoidGate {
  template <class Forms>
  FLA_DEVICE Slope operator()(Forms forms, float x) const {
    const math::Sigmoid s = forms.sigmoid(x);
    return {s.plus, s.plus * s.minus};
  }
};

struct SwishGate {
  template <class Forms>
  FLA_DEVICE Slope operator()(Forms forms, float x) const {
    const math::Sigmoid s = forms.sigmoid(x);
    return {x * s.plus, s.plus * (1.0f + x * s.minus)};
  }
};

struct LogSigmoidGate {
  float inverse_temperature;

  // The smaller exponential again, but of log1p: log(1 + e) would lose it, and log(s) cancels. sigmoid(-x) is not the
  // minus of x's: the short form's is 0 where it should be 1.
  template <class Forms>
  FLA_DEVICE Slope operator()(Forms forms, float x) const {
    const float log_s = fminf(x, 0.0f) - forms.log1p(forms.exp(-fabsf(x)));
    return {log_s * inverse_temperature, forms.sigmoid(-x).plus * inverse_temperature};
  }
};

struct GeluTanhGate {
  static constexpr float kLinear = 1.5957691216057308f;     // 2 sqrt(2 / pi)
  static constexpr float kCubic = 0.071354816272600244f;    // 0.044715 kLinear

  // x sigmoid(2q): x / 2 (1 + tanh q) cancels for x < -3. Beyond 12 (|2q| = 142) the sigmoids are 0 and 1 in fp32; there
  // the argument stays, because 2q' would overflow against a sigmoid of 0 further out.
  template <class Forms>
  FLA_DEVICE Slope operator()(Forms forms, float x) const {
    const float near = math::min_with_nan(math::max_with_nan(x, -12.0f), 12.0f), square = near * near;
    const math::Sigmoid s = forms.sigmoid(near * fmaf(kCubic, square, kLinear));
    return {x * s.plus, s.plus * fmaf(near * s.minus, fmaf(3.0f * kCubic, square, kLinear), 1.0f)};
  }
};

struct ReluGate {
  bool grad_at_zero;

  template <class Forms>
  FLA_DEVICE Slope operator()(Forms, float x) const {
    return {math::max_with_nan(x, 0.0f), x < 0.0f || (x == 0.0f && !grad_at_zero) ? 0.0f : 1.0f};
  }
};

struct SquaredReluGate {
  template <class Forms>
  FLA_DEVICE Slope operator()(Forms, float x) const {
    const float positive = math::max_with_nan(x, 0.0f);
    return {positive * positive, 2.0f * positive};
  }
};

// PowLU. Five MUFU operations instead of seven: sqrt(x) and 1/x from one rsqrt, 1/(1+e) and 1/(1+sqrt(x)) from one
// reciprocal. The power is formed so that its exponent stays small on either side of 1.
struct PowGate {
  float power;

  template <class Forms>
  FLA_DEVICE Slope operator()(Forms forms, float x) const {
    const float e = forms.exp(-fabsf(x));
    const float base = fminf(fmaxf(x, 1e-37f), 1e30f), inverse_root = math::rsqrt_of_normal(base), root = base * inverse_root;
    const float one_e = 1.0f + e, one_root = 1.0f + root;
    const float r = math::reciprocal(one_e * one_root);
    const float large = r * one_root, small = e * large;  // sigmoid(|x|), sigmoid(-|x|)
    const float half_share = r * one_e;                   // 1 / (1 + sqrt(x))
    const float p = power * half_share, log2 = math::log2(base);
    const bool above = base >= 1.0f;
    const float t = math::exp2((above ? p : p - 1.0f) * log2);
    const float x_p = above ? t : base * t, x_p1 = above ? t * (inverse_root * inverse_root) : t;
    if (x > 0.0f) {
      const float bend = fmaf(-0.5f * math::kLn2 * root * half_share, log2, 1.0f);
      return {x_p * large, large * fmaf(p * x_p1, bend, x_p * small)};
    }
    return {x * small, small * fmaf(x, large, 1.0f)};  // NaN comes here; sigmoid(x) is the small one
  }
};

// dy a'(x), for every gate that does not say it better.
template <class Gate, class Forms>
FLA_DEVICE float gradient(const Gate& gate, Forms forms, float x, float dy) {
  return dy * gate(forms, x).slope;
}
// Nothing passes below 0, not even an infinite dy.
template <class Forms>
FLA_DEVICE float gradient(const ReluGate& gate, Forms forms, float x, float dy) {
  return gate(forms, x).slope == 0.0f ? 0.0f : dy;
}
// Overflows only where the result does.
template <class Forms>
FLA_DEVICE float gradient(const SquaredReluGate&, Forms, float x, float dy) {
  return 2.0f * (dy * math::max_with_nan(x, 0.0f));
}

}  // namespace fla::detail
