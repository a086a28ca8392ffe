// The gated MLP, with the rounding points of reference/linear.h; gate, up and their gradients are rounded too.
#pragma once

#include "fla/mlp.h"
#include "reference/linear.h"

namespace fla::reference {

namespace mlp {

// Columns [first, first + n) and rows likewise of a tensor of the reference.
template <class S>
Tensor columns_of(const Tensor& t, int64_t first, int64_t n) {
  if (!t) return t;
  Tensor part = t;
  part.data = static_cast<S*>(t.data) + first;
  part.size[t.rank - 1] = n;
  return part;
}

// Both weights as one matrix: as it came, or put together in `held`.
template <class S>
Factor<S> joint_weight(const Tensor& packed, const Tensor& gate, const Tensor& up, Matrix<S>& held) {
  if (packed) return Factor<S>(packed);
  const View<S> first(gate), second(up);
  const int64_t F = first.size(0), H = first.size(1);
  held.resize(2 * F, H);
  for (int64_t f = 0; f < 2 * F; ++f)
    for (int64_t h = 0; h < H; ++h) held(f, h) = f < F ? first(f, h) : second(f - F, h);
  return held;
}

}  // namespace mlp

template <class S>
void evaluate(const GatedMlpForward& a) {
  const int64_t F = a.down_weight.size[1];
  const DType dtype = a.x.dtype;
  Matrix<S> held, gate_up(a.x.size[0], 2 * F);
  const Tensor both = tensor_of(gate_up, dtype);
  const Factor<S> weight = mlp::joint_weight(a.gate_up_weight, a.gate_weight, a.up_weight, held);
  linear<S>(Factor<S>(a.x), weight.transpose(), a.gate_up_bias, both, dtype);
  const View<S> saved_gate_up(a.gate_up), saved_z(a.z);
  for (int64_t m = 0; saved_gate_up && m < gate_up.rows(); ++m)
    for (int64_t f = 0; f < 2 * F; ++f) saved_gate_up(m, f) = gate_up(m, f);  // the check rounds it
  gate_up = stored(dtype, std::move(gate_up));
  const Tensor rounded = tensor_of(gate_up, dtype);
  const Matrix<S> z =
      glu_of<S>(a.hidden_act, a.parameters, mlp::columns_of<S>(rounded, 0, F), mlp::columns_of<S>(rounded, F, F));
  for (int64_t m = 0; saved_z && m < z.rows(); ++m)
    for (int64_t f = 0; f < F; ++f) saved_z(m, f) = z(m, f);
  linear<S>(z, Factor<S>(a.down_weight).transpose(), a.down_bias, a.out, dtype);
}

template <class S>
void evaluate(const GatedMlpBackward& a) {
  const int64_t M = a.x.size[0], F = a.down_weight.size[1];
  const DType dtype = a.x.dtype;
  const ProductUnit unit = unit_of(dtype);
  const Tensor gate = mlp::columns_of<S>(a.gate_up, 0, F), up = mlp::columns_of<S>(a.gate_up, F, F);
  const bool units = a.dx || a.dgate_up_weight || a.dgate_weight || a.dup_weight || a.dgate_up_bias;
  Matrix<S> held, dgate_up(M, 2 * F);
  if (units) {
    Matrix<S> dz = stored(dtype, product_of<S>(Factor<S>(a.dout), Factor<S>(a.down_weight), unit));
    const Tensor both = tensor_of(dgate_up, dtype);
    glu_backward(a.hidden_act, a.parameters, gate, up, dz, mlp::columns_of<S>(both, 0, F), mlp::columns_of<S>(both, F, F));
    dgate_up = stored(dtype, std::move(dgate_up));
  }
  const Tensor both = tensor_of(dgate_up, dtype);
  if (a.dx)
    linear<S>(dgate_up, mlp::joint_weight(a.gate_up_weight, a.gate_weight, a.up_weight, held), {}, a.dx, dtype);
  const Factor<S> x(a.x), dout(a.dout);
  const auto half = [&](int64_t first) { return Factor<S>(mlp::columns_of<S>(both, first, F)); };
  weight_gradient<S>(dgate_up, x, a.accumulate, a.dgate_up_weight, dtype);
  weight_gradient<S>(half(0), x, a.accumulate, a.dgate_weight, dtype);
  weight_gradient<S>(half(F), x, a.accumulate, a.dup_weight, dtype);
  if (a.ddown_weight && a.z) weight_gradient<S>(dout, Factor<S>(a.z), a.accumulate, a.ddown_weight, dtype);
  if (a.ddown_weight && !a.z)
    weight_gradient<S>(dout, glu_of<S>(a.hidden_act, a.parameters, gate, up), a.accumulate, a.ddown_weight, dtype);
  bias_gradient(dout, a.ddown_bias);
  bias_gradient<S>(dgate_up, a.dgate_up_bias);
}

}  // namespace fla::reference
