// Cross entropy over a vocabulary that is split between ranks.
#pragma once

#include "fla/loss.h"

namespace fla {

// Each rank owns columns [class_start, class_start + V) of total_classes; labels are global and the same on all ranks.
// Shards may differ in size. Three steps, the second of which is the caller's:
//
//   stats      lse_r = log sum_v exp(z_v) of this shard
//              rest_r = -(1 - label_smoothing) z_label [label here] - label_smoothing / total_classes sum_v z_v
//   gather     the pairs of all ranks, 8 bytes per token and rank
//   combine    lse = log sum_r exp(lse_r), loss = sum_r rest_r + lse + lse_square_scale lse^2, both in the order of
//              ranks, so that every rank gets the same bits
//
// and CrossEntropyBackward on each shard, with the combined lse, without communication. Labels as in cross entropy; rows
// that are ignored give (0, 0), rows with invalid labels (0, NaN).
// Errors: as validation; unsupported_shape when V < 1; invalid_argument when class_start + V > total_classes. No
// workspace.
struct CrossEntropyShardStats {
  Tensor logits;          // [T, V] f32/f16/bf16
  Tensor labels;          // [T] i32/i64, global class ids
  Tensor stats;           // [T, 2] f32: lse and the rest of the loss
  Tensor invalid_labels;  // [2] i64, optional: [0] += rows with invalid labels, [1] = min of it and those rows
  int64_t ignore_index = -100;
  int64_t class_start = 0;
  int64_t total_classes = 0;  // 0: V
  float label_smoothing = 0;  // [0, 1]
  float logit_scale = 1;
  float softcap = std::numeric_limits<float>::infinity();
};

template <class V>
void describe(V& v, CrossEntropyShardStats& a) {
  v.attribute("ignore_index", a.ignore_index);
  v.attribute("class_start", a.class_start, {.min = 0});
  v.attribute("total_classes", a.total_classes, {.min = 0});
  v.attribute("label_smoothing", a.label_smoothing, {.min = 0, .max = 1});
  v.attribute("logit_scale", a.logit_scale);
  v.attribute("softcap", a.softcap, {.min = 0, .exclude_min = true, .allow_infinite = true});
  const Dim T = v.dim("T"), classes = v.dim("V");
  v.input("logits", a.logits, {T, classes});
  v.input("labels", a.labels, {T}, {.types = kIndex, .content = {Content::labels, classes, a.ignore_index}});
  v.output("stats", a.stats, {T, 2}, {.types = kF32});
  v.inout("invalid_labels", a.invalid_labels, {2},
          {.presence = Presence::optional, .types = only(DType::i64), .content = {Content::counters}});
}

Status check(const CrossEntropyShardStats&);
size_t workspace_bytes(const CrossEntropyShardStats&);
Status run(const CrossEntropyShardStats&, Workspace, Stream);

// The loss of all shards from the gathered pairs. `mean` divides by the labels that are not ignored, counted on the
// device, or by `normalizer`. Workspace: per-row losses when the result is reduced (8 T bytes at most), else 0.
struct CrossEntropyShardCombine {
  Tensor stats;       // [P, T, 2] f32, by rank
  Tensor labels;      // [T] i32/i64
  Tensor normalizer;  // [1] f32 > 0, optional
  Tensor loss;        // [T] with reduction none, else [1]; f32
  Tensor z_loss;      // as loss, optional
  Tensor lse;         // [T] f32, optional
  int64_t ignore_index = -100;
  float lse_square_scale = 0;
  Reduction reduction = Reduction::mean;
  EmptyMean empty_mean = EmptyMean::zero;
};

template <class V>
void describe(V& v, CrossEntropyShardCombine& a) {
  v.attribute("ignore_index", a.ignore_index);
  v.attribute("lse_square_scale", a.lse_square_scale, {.min = 0});
  v.option("reduction", a.reduction, kReductionNames);
  v.option("empty_mean", a.empty_mean, kEmptyMeanNames);
  const Dim P = v.dim("P"), T = v.dim("T");
  const Shape reduced = a.reduction == Reduction::none ? Shape{T} : Shape{1};
  v.input("stats", a.stats, {P, T, 2}, {.types = kF32});
  v.input("labels", a.labels, {T}, {.types = kIndex, .content = {Content::labels, 1000, a.ignore_index}});
  v.input("normalizer", a.normalizer, {1},
          {.presence = Presence::optional, .types = kF32, .content = {Content::positive}});
  v.output("loss", a.loss, reduced, {.types = kF32});
  v.output("z_loss", a.z_loss, reduced, {.presence = Presence::optional, .types = kF32});
  v.output("lse", a.lse, {T}, {.presence = Presence::optional, .types = kF32});
}

Status check(const CrossEntropyShardCombine&);
size_t workspace_bytes(const CrossEntropyShardCombine&);
Status run(const CrossEntropyShardCombine&, Workspace, Stream);

}  // namespace fla
