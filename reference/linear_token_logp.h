// Log-probabilities of tokens from hidden states: a linear layer in front of selective log-softmax.
#pragma once

#include "fla/linear_token_logp.h"
#include "reference/l2_warp.h"
#include "reference/linear_loss.h"
#include "reference/token_logp.h"

namespace fla::reference {

// What either direction of selective log-softmax is told.
template <class S, class Inner, class A>
Inner token_logp_of(const A& a, Matrix<S>& logits) {
  Inner inner;
  static_cast<LogitChainOptions&>(inner) = a;
  inner.ignore_index = a.ignore_index;
  inner.logits = tensor_of(logits, a.x.dtype);
  inner.labels = a.labels;
  inner.lse = a.lse;
  inner.entropy = a.entropy;
  return inner;
}

template <class S>
void evaluate(const LinearTokenLogpForward& a) {
  Matrix<S> logits = linear_logits<S>(a.x, a.weight, a.bias);
  const int64_t rows = logits.rows();
  std::vector<S> by_row(static_cast<size_t>(rows));
  const Tensor column = dense(by_row.data(), DType::f32, {rows});
  if (a.argmax) evaluate<S>(L2WarpForward{tensor_of(logits, a.x.dtype), column, a.argmax});
  auto inner = token_logp_of<S, SelectiveLogSoftmaxForward>(a, logits);
  inner.logp = a.logp;
  inner.invalid_labels = a.invalid_labels;
  if (!inner.lse) inner.lse = column;
  evaluate<S>(inner);
  if (!a.entropy) return;
  // Chunks are merged by their log-sum-exps: an error d of those moves the entropy by 2 d of it at most.
  const View<S> lse(inner.lse), entropy(a.entropy);
  for (int64_t t = 0; t < rows; ++t) {
    const S drift = detach(lse(t)) - S(value(lse(t)));
    entropy(t) = entropy(t) * (S(1.0) + S(2.0) * drift);
  }
}

template <class S>
void evaluate(const LinearTokenLogpBackward& a) {
  const DType dtype = a.x.dtype;
  Matrix<S> logits = linear_logits<S>(a.x, a.weight, a.bias), dlogits(logits.rows(), logits.cols());
  auto inner = token_logp_of<S, SelectiveLogSoftmaxBackward>(a, logits);
  inner.dlogp = a.dlogp;
  inner.dentropy = a.dentropy;
  inner.dlogits = tensor_of(dlogits, dtype);
  evaluate<S>(inner);
  logit_gradients(a, stored(dtype, std::move(dlogits)), S(1.0));
}

}  // namespace fla::reference
