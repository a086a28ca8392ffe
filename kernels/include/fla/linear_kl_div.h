// Distillation from hidden states, without either [T, V] logits in memory.
#pragma once

#include "fla/distribution_loss.h"
#include "fla/linear_loss.h"

namespace fla {

// Divergence of KlDivForwardBackward (formulas, label rules and attributes there) and its gradients, of
//
//   logits = x weight^T    target_logits = target_x target_weight^T      fp32 sums, rounded once to the dtype of x
//
// With dlogits as it forms them for upstream gradient 1, rounded once, and alpha = dloss / divisor (batchmean: of the
// tokens not ignored, or normalizer), applied to fp32 sums:
//
//   dx = alpha dlogits weight    dweight = alpha dlogits^T x    (accumulate: +=)
//
// The teacher is a constant. Four products, 2 T V (3 H + G) flops. Only the gradients whose pointers are set are computed.
// Workspace: that of LinearCrossEntropyForwardBackward's fast strategy without z-loss, lse and dbias, and e C R64(V) more
// for the chunk of the teacher. C = 4096, or the first of 4096, 2048, ... 128 that fits workspace_limit.
// Errors: as validation; unsupported_shape for V = 0 or H = 0; invalid_argument for reduction none, bad_stride for
// matrices whose rows overlap. Deterministic, no host synchronisation.
struct LinearKlDivForwardBackward {
  Tensor x, weight;                // [T, H], [V, H] f32/f16/bf16, of the student
  Tensor target_x, target_weight;  // [T, G], [V, G] dtype of x, of the teacher
  Tensor labels;                   // [T] i32/i64, optional: a mask, as in KlDivForwardBackward
  Tensor normalizer;               // [1] f32 > 0, optional
  Tensor dloss;                    // [1] f32, optional: 1
  Tensor loss;                     // [1] f32
  Tensor dx;                       // [T, H] dtype of x
  Tensor dweight;                  // [V, H] any float; f32 costs no scratch
  bool accumulate = false;         // add to dweight, which is f32 then
  int64_t ignore_index = -100;
  float temperature = 1;  // > 0
  float beta = 0.5f;      // (0, 1), of jensen_shannon
  Divergence divergence = Divergence::forward_kl;
  Reduction reduction = Reduction::mean;
  EmptyMean empty_mean = EmptyMean::zero;
  int64_t chunk = 0;            // tokens; 0: chosen
  int64_t workspace_limit = 0;  // bytes; 0: none
};

template <class V>
void describe(V& v, LinearKlDivForwardBackward& a) {
  v.attribute("ignore_index", a.ignore_index);
  v.attribute("temperature", a.temperature, {.min = 0, .exclude_min = true});
  v.attribute("beta", a.beta, {.min = 0x1p-20, .max = 1 - 0x1p-20});
  v.option("divergence", a.divergence, kDivergenceNames);
  v.option("reduction", a.reduction, kTokenReductionNames);
  v.option("empty_mean", a.empty_mean, kEmptyMeanNames);
  v.attribute("accumulate", a.accumulate);
  v.attribute("chunk", a.chunk, {.min = 0});
  v.attribute("workspace_limit", a.workspace_limit, {.min = 0});
  const Dim T = v.dim("T"), H = v.dim("H"), G = v.dim("G"), classes = v.dim("V");
  v.input("x", a.x, {T, H});
  v.input("weight", a.weight, {classes, H}, {.like = &a.x});
  v.input("target_x", a.target_x, {T, G}, {.like = &a.x});
  v.input("target_weight", a.target_weight, {classes, G}, {.like = &a.x});
  v.input("labels", a.labels, {T},
          {.presence = Presence::optional, .types = kIndex, .content = {Content::labels, classes, a.ignore_index}});
  v.input("normalizer", a.normalizer, {1},
          {.presence = Presence::optional, .types = kF32, .content = {Content::positive}});
  v.input("dloss", a.dloss, {1}, {.presence = Presence::optional, .types = kF32});
  v.output("loss", a.loss, {1}, {.types = kF32});
  v.output("dx", a.dx, {T, H}, {.presence = Presence::expected, .like = &a.x});
  detail::describe_gradient(v, "dweight", a.dweight, {classes, H}, a.accumulate, {.presence = Presence::expected});
}

LinearLossPlan plan(const LinearKlDivForwardBackward&);
Status check(const LinearKlDivForwardBackward&);
size_t workspace_bytes(const LinearKlDivForwardBackward&);
Status run(const LinearKlDivForwardBackward&, Workspace, Stream);

}  // namespace fla
