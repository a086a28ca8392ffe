// Activations and gated units. The kernels' stable forms are the reference's too: what a bound allows depends on the form.
// `signal` is x's dtype, by which kernels choose between full and short forms.
#pragma once

#include <numbers>

#include "fla/activation.h"
#include "reference/short_forms.h"
#include "reference/view.h"

namespace fla::reference {

template <class S>
struct Slope {
  S value, slope;  // a(x), a'(x)
};

template <class S>
constexpr Slope<S> sigmoid_gate(DType signal, const S& x) {
  const Sigmoid<S> s = sigmoid_(in_base_2(signal, x));
  return {s.plus, s.plus * s.minus};
}

template <class S>
constexpr Slope<S> swish_gate(DType signal, const S& x) {
  const Sigmoid<S> s = sigmoid_(in_base_2(signal, x));
  return {x * s.plus, s.plus * (S(1.0) + x * s.minus)};
}

template <class S>
constexpr Slope<S> logsigmoid_gate(DType signal, const S& x, const S& temperature) {
  const S log_s = min_(x, S(0.0)) - log1p_for(signal, exp_(in_base_2(signal, -abs_(x))));
  return {log_s / temperature, sigmoid_(in_base_2(signal, x)).minus / temperature};
}

// Beyond |x| = 20 the sigmoids are 0 and 1 to 250 digits, and 2q' would overflow fp32 against such a 0.
template <class S>
constexpr Slope<S> gelu_tanh_gate(DType signal, const S& x) {
  const double linear = 2 * std::sqrt(2 / std::numbers::pi), cubic = 0.044715 * linear;
  auto two_q = [&](const S& u) { return in_base_2(signal, u * (S(linear) + S(cubic) * (u * u))); };
  const S near = max_(min_(x, S(20.0)), S(-20.0));
  const Sigmoid<S> s = sigmoid_(two_q(near));
  const S two_q_slope = S(linear) + S(3 * cubic) * (near * near);
  return {x * sigmoid_(two_q(x)).plus, s.plus * (S(1.0) + near * s.minus * two_q_slope)};
}

// arXiv 2605.25704. The exponent is kept small: x^p by x^(p-1) below 1, the reverse above.
template <class S>
constexpr Slope<S> pow_gate(DType signal, const S& x, const S& power) {
  const Sigmoid<S> s = sigmoid_(in_base_2(signal, x));
  const S base = min_(max_(x, S(1e-37)), S(1e30)), root = sqrt_(base), log2 = log2_(base);
  const S share = S(1.0) / (root + S(1.0)), p = power * share;
  const auto below = less_(base, S(1.0));
  const S t = exp2_(select_(below, p - S(1.0), p) * log2);
  const S x_p = select_(below, base * t, t), x_p1 = select_(below, t, t / base);
  const S bend = S(1.0) - S(std::numbers::ln2 / 2) * root * share * log2;
  const Slope<S> swish = swish_gate(signal, x);
  const auto positive = less_(S(0.0), x);
  return {select_(positive, x_p * s.plus, swish.value),
          select_(positive, s.plus * (p * x_p1 * bend + x_p * s.minus), swish.slope)};
}

template <class S>
constexpr S activation(Activation kind, DType signal, const S& x, const S& temperature) {
  switch (kind) {
    case Activation::sigmoid: return sigmoid_gate(signal, x).value;
    case Activation::logsigmoid: return logsigmoid_gate(signal, x, temperature).value;
    case Activation::swish: return swish_gate(signal, x).value;
    case Activation::gelu_tanh: return gelu_tanh_gate(signal, x).value;
    case Activation::relu: return max_(S(0.0), x);
    case Activation::sqrelu: return max_(S(0.0), x) * max_(S(0.0), x);
  }
  return x;
}

template <class S>
constexpr S activation_gradient(const ActivationBackward& a, const S& x, const S& dy) {
  const S temperature = constant<S>(a.temperature);
  const DType signal = a.x.dtype;
  switch (a.kind) {
    case Activation::sigmoid: return dy * sigmoid_gate(signal, x).slope;
    case Activation::logsigmoid: return dy * logsigmoid_gate(signal, x, temperature).slope;
    case Activation::swish: return dy * swish_gate(signal, x).slope;
    case Activation::gelu_tanh: return dy * gelu_tanh_gate(signal, x).slope;
    case Activation::relu: {
      const S neither = is_nan(x) || a.grad_at_zero ? dy : S(0.0);
      return select_(less_(S(0.0), x), dy, select_(less_(x, S(0.0)), S(0.0), neither));
    }
    case Activation::sqrelu: return S(2.0) * (dy * max_(S(0.0), x));
  }
  return x;
}

template <class S>
void evaluate(const ActivationForward& a) {
  const View<S> x(a.x), y(a.y);
  for (int64_t m = 0; m < x.size(0); ++m)
    for (int64_t c = 0; c < x.size(1); ++c)
      y(m, c) = activation(a.kind, a.x.dtype, x(m, c), constant<S>(a.temperature));
}

template <class S>
void evaluate(const ActivationBackward& a) {
  const View<S> x(a.x), dy(a.dy), dx(a.dx);
  for (int64_t m = 0; m < x.size(0); ++m)
    for (int64_t c = 0; c < x.size(1); ++c) dx(m, c) = activation_gradient(a, x(m, c), dy(m, c));
}

template <class S>
void evaluate(const BiasGeluTanhForward& a) {
  const View<S> x(a.x), bias(a.bias), y(a.y);
  for (int64_t m = 0; m < x.size(0); ++m)
    for (int64_t c = 0; c < x.size(1); ++c) y(m, c) = gelu_tanh_gate(a.x.dtype, x(m, c) + bias(c)).value;
}

template <class S>
void evaluate(const BiasGeluTanhBackward& a) {
  const View<S> x(a.x), bias(a.bias), dy(a.dy), dx(a.dx), dbias(a.dbias);
  auto gradient = [&](int64_t m, int64_t c) {
    return dy(m, c) * gelu_tanh_gate(a.x.dtype, x(m, c) + bias(c)).slope;
  };
  if (dbias)  // of unrounded terms
    for (int64_t c = 0; c < x.size(1); ++c)
      dbias(c) = sum<S>(x.size(0), [&](int64_t m) { return gradient(m, c); });
  if (!dx) return;
  for (int64_t m = 0; m < x.size(0); ++m)
    for (int64_t c = 0; c < x.size(1); ++c) dx(m, c) = gradient(m, c);
}

// a(x), and what it is multiplied with; both with their slopes.
template <class S>
struct GatedPair {
  Slope<S> gate, up;
};

template <class S>
constexpr GatedPair<S> clamped_swiglu_pair(const GluParameters& p, DType signal, const S& x, const S& y) {
  const S alpha = constant<S>(p.alpha), limit = constant<S>(p.limit), g = min_(x, limit);
  const Sigmoid<S> s = sigmoid_(in_base_2(signal, alpha * g));
  const S value = g * s.plus;
  return {{value, select_(less_(limit, x), S(0.0), s.plus + alpha * value * s.minus)},
          {max_(min_(y, limit), -limit) + constant<S>(p.offset), select_(less_(limit, abs_(y)), S(0.0), S(1.0))}};
}

template <class S>
constexpr GatedPair<S> gated_pair(GatedUnit kind, const GluParameters& p, DType signal, const S& x, const S& y) {
  const Slope<S> up{y, S(1.0)};
  switch (kind) {
    case GatedUnit::swiglu: return {swish_gate(signal, x), up};
    case GatedUnit::sigmoidglu: return {sigmoid_gate(signal, x), up};
    case GatedUnit::powglu: return {pow_gate(signal, x, constant<S>(p.power)), up};
    case GatedUnit::geglu: return {gelu_tanh_gate(signal, x), up};
    case GatedUnit::clamped_swiglu: return clamped_swiglu_pair(p, signal, x, y);
  }
  return {up, up};
}

template <class S>
constexpr S gated_value(const GluForward& a, const S& x, const S& y) {
  const GatedPair<S> pair = gated_pair(a.kind, a.parameters, a.x.dtype, x, y);
  return pair.gate.value * pair.up.value;
}

template <class S>
void evaluate(const GluForward& a) {
  const View<S> x(a.x), y(a.y), z(a.z);
  for (int64_t m = 0; m < x.size(0); ++m)
    for (int64_t f = 0; f < x.size(1); ++f) z(m, f) = gated_value(a, x(m, f), y(m, f));
}

template <class S>
struct GluGradients {
  S dx, dy, z;
};

template <class S>
constexpr GluGradients<S> glu_gradients(const GluBackward& a, const S& x, const S& y, const S& dz) {
  const auto [gate, up] = gated_pair(a.kind, a.parameters, a.x.dtype, x, y);
  return {dz * gate.slope * up.value, value(up.slope) == 0 ? S(0.0) : dz * gate.value, gate.value * up.value};
}

template <class S>
void evaluate(const GluBackward& a) {
  const View<S> x(a.x), y(a.y), dz(a.dz), dx(a.dx), dy(a.dy), z(a.z);
  for (int64_t m = 0; m < x.size(0); ++m) {
    for (int64_t f = 0; f < x.size(1); ++f) {
      const GluGradients<S> g = glu_gradients(a, x(m, f), y(m, f), dz(m, f));
      if (dx) dx(m, f) = g.dx;
      if (dy) dy(m, f) = g.dy;
      if (z) z(m, f) = g.z;
    }
  }
}

}  // namespace fla::reference
