// The last linear layer and cross entropy over a vocabulary that is split between ranks.
#pragma once

#include "fla/cross_entropy_shards.h"
#include "fla/linear_loss.h"

namespace fla {

// Each rank has rows [class_start, class_start + V) of weight and bias; x and labels are the same on all ranks. Steps:
//
//   stats      this struct: the pairs of CrossEntropyShardStats, of logits = x weight^T + bias
//   gather     the pairs of all ranks, 8 bytes per token and rank
//   combine    CrossEntropyShardCombine: loss and lse, with the same bits on every rank
//   backward   LinearCrossEntropyBackward on each rank, with the combined lse and this shard's class_start and
//              total_classes: dweight and dbias are the rank's own
//   sum        dx over all ranks, in f32 if each of them asks for that
//
// Reduction, z-loss and upstream gradients belong to the later steps. 2 T H V flops. Workspace as
// LinearCrossEntropyForward with reduction none. Errors: as validation; unsupported_shape when V < 1 or H < 1;
// invalid_argument when class_start + V > total_classes; bad_stride for matrices whose rows overlap. Deterministic, no host
// synchronisation.
struct LinearCrossEntropyShardStats : LinearCrossEntropyOptions {
  Tensor x;               // [T, H] f32/f16/bf16
  Tensor weight;          // [V, H] dtype of x, of this shard
  Tensor bias;            // [V] dtype of x, optional, of this shard
  Tensor labels;          // [T] i32/i64, global class ids
  Tensor stats;           // [T, 2] f32: lse and the rest of the loss
  Tensor invalid_labels;  // [2] i64, optional: as CrossEntropyForward
};

template <class V>
void describe(V& v, LinearCrossEntropyShardStats& a) {
  v.attribute("ignore_index", a.ignore_index);
  v.attribute("class_start", a.class_start, {.min = 0});
  v.attribute("total_classes", a.total_classes, {.min = 0});
  v.attribute("label_smoothing", a.label_smoothing, {.min = 0, .max = 1});
  v.attribute("logit_scale", a.logit_scale);
  v.attribute("softcap", a.softcap, {.min = 0, .exclude_min = true, .allow_infinite = true});
  describe_strategy(v, a);
  const Dim T = v.dim("T"), H = v.dim("H"), classes = v.dim("V");
  detail::describe_linear_logits(v, a, T, H, classes);
  v.output("stats", a.stats, {T, 2}, {.types = kF32});
  v.inout("invalid_labels", a.invalid_labels, {2},
          {.presence = Presence::optional, .types = only(DType::i64), .content = {Content::counters}});
}

LinearLossPlan plan(const LinearCrossEntropyShardStats&);
Status check(const LinearCrossEntropyShardStats&);
size_t workspace_bytes(const LinearCrossEntropyShardStats&);
Status run(const LinearCrossEntropyShardStats&, Workspace, Stream);

}  // namespace fla
