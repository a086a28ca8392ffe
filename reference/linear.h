// Linear layers with an inner part. Rounded on the way are: the inner result, as it is stored in front of the product
// (R2, R5), the product of dout and the weight in front of the inner backward (R4), and biases, which a product takes in
// the dtype of its result. fp32 sums everywhere else.
#pragma once

#include "fla/linear.h"
#include "reference/activation.h"
#include "reference/matrix.h"
#include "reference/norm.h"

namespace fla::reference {

// z = GLU(x, y) of [M, F] tensors, rounded to the dtype of x.
template <class S>
Matrix<S> glu_of(GatedUnit kind, const GluParameters& parameters, const Tensor& x, const Tensor& y) {
  Matrix<S> z(x.size[0], x.size[1]);
  evaluate<S>(GluForward{.kind = kind, .x = x, .y = y, .z = tensor_of(z, x.dtype), .parameters = parameters});
  return stored(x.dtype, std::move(z));
}

// Its backward; the outputs are not rounded here.
template <class S>
void glu_backward(GatedUnit kind, const GluParameters& parameters, const Tensor& x, const Tensor& y, Matrix<S>& dz,
                  const Tensor& dx, const Tensor& dy) {
  evaluate<S>(GluBackward{.kind = kind, .x = x, .y = y, .dz = tensor_of(dz, x.dtype), .dx = dx, .dy = dy, .z = {},
                          .parameters = parameters});
}

// out = A B + bias, the bias read in the dtype of out.
template <class S>
void linear(const Factor<S>& a, const Factor<S>& b, const Tensor& bias_tensor, const Tensor& out_tensor, DType operands) {
  const Matrix<S> sums = product_of<S>(a, b, unit_of(operands));
  const View<S> bias(bias_tensor), out(out_tensor);
  for (int64_t i = 0; i < sums.rows(); ++i)
    for (int64_t j = 0; j < sums.cols(); ++j)
      out(i, j) = bias ? sums(i, j) + store_as(out_tensor.dtype, bias(j)) : sums(i, j);
}

// gradient = upstream^T input, or added to what is there.
template <class S>
void weight_gradient(const Factor<S>& upstream, const Factor<S>& input, bool accumulate, const Tensor& gradient,
                     DType operands) {
  const View<S> out(gradient);
  if (!out) return;
  const Matrix<S> sums = product_of<S>(upstream.transpose(), input, unit_of(operands));
  for (int64_t i = 0; i < sums.rows(); ++i)
    for (int64_t j = 0; j < sums.cols(); ++j) out(i, j) = accumulate ? out(i, j) + sums(i, j) : sums(i, j);
}

template <class S>
void bias_gradient(const Factor<S>& upstream, const Tensor& gradient) {
  const View<S> out(gradient);
  if (!out) return;
  for (int64_t j = 0; j < upstream.inner(); ++j)
    out(j) = sum<S>(upstream.outer(), [&](int64_t i) { return upstream(i, j); });
}

template <class S>
void evaluate(const GluLinearForward& a) {
  const Matrix<S> z = glu_of<S>(a.kind, a.parameters, a.x, a.y);
  linear<S>(z, Factor<S>(a.linear_weight).transpose(), a.linear_bias, a.out, a.x.dtype);
}

template <class S>
void evaluate(const GluLinearBackward& a) {
  const DType dtype = a.x.dtype;
  if (a.dx || a.dy) {
    Matrix<S> dz =
        stored(dtype, product_of<S>(Factor<S>(a.dout), Factor<S>(a.linear_weight), unit_of(dtype)));
    glu_backward(a.kind, a.parameters, a.x, a.y, dz, a.dx, a.dy);
  }
  if (a.dlinear_weight)
    weight_gradient<S>(Factor<S>(a.dout), glu_of<S>(a.kind, a.parameters, a.x, a.y), a.accumulate, a.dlinear_weight, dtype);
  bias_gradient(Factor<S>(a.dout), a.dlinear_bias);
}

namespace norm_linear {

// [M, C] as [M, G, C / G], and [C] likewise.
inline Tensor grouped(const Tensor& t, int64_t groups) {
  if (!t) return t;
  Tensor g = t;
  const int last = t.rank - 1;
  g.rank = t.rank + 1;
  g.size[last] = groups;
  g.size[last + 1] = t.size[last] / groups;
  g.stride[last] = g.size[last + 1];
  g.stride[last + 1] = 1;
  return g;
}

// The gated norm; without a gate it is the plain one.
template <class S, NormKind kKind>
void forward(const NormLinearForward& a, const Tensor& y) {
  const auto group = [&](const Tensor& t) { return grouped(t, a.num_groups); };
  evaluate<S>(GatedNormForward<kKind>{
      .x = group(a.x), .residual = group(a.residual), .gate = group(a.gate), .weight = group(a.weight),
      .bias = group(a.bias), .y = group(y), .residual_out = group(a.residual_out), .mean = a.mean, .rstd = a.rstd,
      .eps = a.eps, .weight_offset = a.weight_offset, .activation = a.activation, .gate_order = a.gate_order,
      .weight_per_group = true});
}

template <class S, NormKind kKind>
void backward(const NormLinearBackward& a, const Tensor& dy, const Tensor& y) {
  const auto group = [&](const Tensor& t) { return grouped(t, a.num_groups); };
  evaluate<S>(GatedNormBackward<kKind>{
      .x = group(a.x), .residual_out = group(a.residual_out), .gate = group(a.gate), .weight = group(a.weight),
      .bias = group(a.bias), .mean = a.mean, .rstd = a.rstd, .dy = group(dy),
      .dresidual_out = group(a.dresidual_out), .dx = group(a.dx), .dgate = group(a.dgate),
      .dresidual = group(a.dresidual), .dweight = group(a.dweight), .dbias = group(a.dbias), .y = group(y),
      .weight_offset = a.weight_offset, .activation = a.activation, .gate_order = a.gate_order,
      .weight_per_group = true});
}

}  // namespace norm_linear

template <class S>
void evaluate(const NormLinearForward& a) {
  Matrix<S> y(a.x.size[0], a.x.size[1]);
  if (a.kind == NormKind::layer) norm_linear::forward<S, NormKind::layer>(a, tensor_of(y, a.x.dtype));
  else norm_linear::forward<S, NormKind::rms>(a, tensor_of(y, a.x.dtype));
  y = stored(a.x.dtype, std::move(y));
  linear<S>(y, Factor<S>(a.linear_weight).transpose(), a.linear_bias, a.out, a.x.dtype);
}

template <class S>
void evaluate(const NormLinearBackward& a) {
  const DType dtype = a.linear_weight.dtype;
  Matrix<S> y(a.dout.size[0], a.linear_weight.size[1]);
  Matrix<S> dy = stored(dtype, product_of<S>(Factor<S>(a.dout), Factor<S>(a.linear_weight), unit_of(dtype)));
  if (a.kind == NormKind::layer)
    norm_linear::backward<S, NormKind::layer>(a, tensor_of(dy, dtype), tensor_of(y, dtype));
  else norm_linear::backward<S, NormKind::rms>(a, tensor_of(dy, dtype), tensor_of(y, dtype));
  if (a.dlinear_weight)
    weight_gradient<S>(Factor<S>(a.dout), stored(dtype, std::move(y)), a.accumulate, a.dlinear_weight, dtype);
  bias_gradient(Factor<S>(a.dout), a.dlinear_bias);
}

}  // namespace fla::reference
