// Losses between two distributions over a vocabulary: distillation.
#pragma once

#include "fla/loss.h"

namespace fla {

// With p the teacher's and q the student's probabilities, m = beta p + (1 - beta) q:
enum class Divergence : int32_t {
  forward_kl,      // KL(p || q), the default of distillation
  reverse_kl,      // KL(q || p)
  jensen_shannon,  // beta KL(p || m) + (1 - beta) KL(q || m)
};
inline constexpr const char* kDivergenceNames[] = {"forward_kl", "reverse_kl", "jensen_shannon"};
// As everywhere, but what others call batchmean: over tokens, not over elements.
inline constexpr const char* kTokenReductionNames[] = {"batchmean", "sum", "none"};

// Divergence of T rows of V student logits from teacher logits and its gradient, in one pass for an upstream gradient
// that is known up front (null: 1). In fp32, per row that is not ignored, with p = softmax(target_logits / temperature)
// and q = softmax(logits / temperature):
//
//   forward_kl      loss = sum_v p_v (ln p_v - ln q_v)    dlogits = g / temperature (q - p)
//   reverse_kl      loss = sum_v q_v (ln q_v - ln p_v)    dlogits = g / temperature q (ln q - ln p - loss)
//   jensen_shannon  loss as above                         dlogits = g / temperature (1 - beta) q (ln q - ln m - KL(q || m))
//
// without a hidden factor temperature^2. A probability of 0 contributes 0 (0 ln 0 = 0); p > 0 where q = 0 gives +inf.
// The teacher is a constant: there is no gradient for it. Labels serve as a mask only: rows whose label is
// ignore_index have loss 0 and gradient 0 whatever their logits hold, and are not counted. `batchmean` divides by the
// tokens that are not ignored (all T without labels), or by `normalizer`.
// Hinton et al. 2015; Agarwal et al. 2024 (generalised Jensen-Shannon).
//
// Both rows stay on chip between their statistics and the gradient as far as they fit (660000 columns in 16 bit, half of
// that in f32); the rest is read again. Deterministic; no host synchronisation. Row strides are free; fastest when
// rows of all three tensors meet 16-byte boundaries at the same columns.
// Workspace: per-row losses (4 T bytes) unless reduction is none, plus 256 bytes for `batchmean` with labels and
// without normalizer. Errors: as validation; unsupported_shape when V < 1 or V >= 2^31 - 65536.
struct KlDivForwardBackward {
  Tensor logits;         // [T, V] f32/f16/bf16, of the student
  Tensor target_logits;  // [T, V] dtype of logits, of the teacher
  Tensor labels;         // [T] i32/i64, optional
  Tensor normalizer;     // [1] f32 > 0, optional: divisor of `batchmean`
  Tensor dloss;          // [T] with reduction none, else [1]; f32, optional
  Tensor loss;           // [T] with reduction none, else [1]; f32
  Tensor dlogits;        // [T, V] dtype of logits; may be exactly logits
  int64_t ignore_index = -100;
  float temperature = 1;  // > 0
  float beta = 0.5f;      // (0, 1), of jensen_shannon
  Divergence divergence = Divergence::forward_kl;
  Reduction reduction = Reduction::mean;
  EmptyMean empty_mean = EmptyMean::zero;
};

template <class V>
void describe(V& v, KlDivForwardBackward& a) {
  v.attribute("ignore_index", a.ignore_index);
  v.attribute("temperature", a.temperature, {.min = 0, .exclude_min = true});
  v.attribute("beta", a.beta, {.min = 0x1p-20, .max = 1 - 0x1p-20});
  v.option("divergence", a.divergence, kDivergenceNames);
  v.option("reduction", a.reduction, kTokenReductionNames);
  v.option("empty_mean", a.empty_mean, kEmptyMeanNames);
  const Dim T = v.dim("T"), classes = v.dim("V");
  const Shape reduced = a.reduction == Reduction::none ? Shape{T} : Shape{1};
  v.input("logits", a.logits, {T, classes});
  v.input("target_logits", a.target_logits, {T, classes}, {.like = &a.logits});
  v.input("labels", a.labels, {T},
          {.presence = Presence::optional, .types = kIndex, .content = {Content::labels, classes, a.ignore_index}});
  v.input("normalizer", a.normalizer, {1},
          {.presence = Presence::optional, .types = kF32, .content = {Content::positive}});
  v.input("dloss", a.dloss, reduced, {.presence = Presence::optional, .types = kF32});
  v.output("loss", a.loss, reduced, {.types = kF32});
  v.output("dlogits", a.dlogits, {T, classes}, {.like = &a.logits, .alias = &a.logits});
}

Status check(const KlDivForwardBackward&);
size_t workspace_bytes(const KlDivForwardBackward&);
Status run(const KlDivForwardBackward&, Workspace, Stream);

}  // namespace fla
