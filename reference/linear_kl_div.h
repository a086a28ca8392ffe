// Distillation from hidden states.
#pragma once

#include "fla/linear_kl_div.h"
#include "reference/distribution_loss.h"
#include "reference/linear_loss.h"

namespace fla::reference {

template <class S>
void evaluate(const LinearKlDivForwardBackward& a) {
  const DType dtype = a.x.dtype;
  Matrix<S> student = linear_logits<S>(a.x, a.weight, {}), teacher = linear_logits<S>(a.target_x, a.target_weight, {});
  Matrix<S> dlogits(student.rows(), student.cols());
  KlDivForwardBackward inner;
  inner.logits = tensor_of(student, dtype);
  inner.target_logits = tensor_of(teacher, dtype);
  inner.labels = a.labels;
  inner.normalizer = a.normalizer;
  inner.loss = a.loss;
  inner.dlogits = tensor_of(dlogits, dtype);
  inner.ignore_index = a.ignore_index;
  inner.temperature = a.temperature;
  inner.beta = a.beta;
  inner.divergence = a.divergence;
  inner.reduction = a.reduction;
  inner.empty_mean = a.empty_mean;
  evaluate<S>(inner);
  // The gradient again, without the divisor, which comes behind the products.
  S total;
  inner.loss = dense(&total, DType::f32, {1});
  inner.reduction = Reduction::sum;
  evaluate<S>(inner);

  S alpha = a.dloss ? View<S>(a.dloss)(0) : S(1.0);
  const View<int64_t> labels(a.labels);
  int64_t kept = 0;
  for (int64_t t = 0; t < student.rows(); ++t) kept += !labels || labels(t) != a.ignore_index;
  const S divisor = a.normalizer ? View<S>(a.normalizer)(0) : constant<S>(kept);
  if (a.reduction == Reduction::mean && (a.normalizer || kept > 0)) alpha = alpha / divisor;
  logit_gradients(a, stored(dtype, std::move(dlogits)), alpha);
}

}  // namespace fla::reference
