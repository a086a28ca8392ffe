// Losses.
#pragma once

#include <limits>

#include "fla/describe.h"
#include "fla/status.h"
#include "fla/tensor.h"

namespace fla {

enum class Reduction : int32_t { mean, sum, none };
inline constexpr const char* kReductionNames[] = {"mean", "sum", "none"};

// What `mean` gives when every token is ignored.
enum class EmptyMean : int32_t { zero, nan };
inline constexpr const char* kEmptyMeanNames[] = {"zero", "nan"};

// Cross entropy of T rows of V logits with hard labels, vocabulary columns [class_start, class_start + V) of
// total_classes. In fp32, per row that is not ignored:
//
//   z = softcap * tanh(logit_scale * logit / softcap)       (softcap infinite: z = logit_scale * logit)
//   lse = log sum_v exp(z_v)
//   loss = lse - (1 - label_smoothing) z_label - label_smoothing / K sum_v z_v + lse_square_scale lse^2
//
// with K = total_classes. A label equal to ignore_index (tested first) gives loss 0 and gradient 0 whatever the
// logits hold. A label outside [0, K) gives loss NaN and gradient 0, counts in `invalid_labels`, and never forms
// an address. Neither kind of row is read: lse is 0 for both. A label in [0, K) that lies in another shard contributes
// no z_label term.
// `mean` divides by the number of tokens not ignored, counted on the device; `normalizer` replaces that count.
// Szegedy et al. 2016 (smoothing), PaLM 2022 (z-loss), Gemma 2 2024 (soft-capping).
//
// [T, V] logits have a free row stride and any alignment. Deterministic; no host synchronisation.
struct CrossEntropyOptions {
  int64_t ignore_index = -100;
  int64_t class_start = 0;
  int64_t total_classes = 0;     // 0: V
  float label_smoothing = 0;     // [0, 1]
  float logit_scale = 1;         // finite, any sign
  float lse_square_scale = 0;    // z-loss factor, >= 0
  float softcap = std::numeric_limits<float>::infinity();  // > 0; infinite: none
  Reduction reduction = Reduction::mean;
  EmptyMean empty_mean = EmptyMean::zero;
};

template <class V>
void describe_options(V& v, CrossEntropyOptions& a) {
  v.attribute("ignore_index", a.ignore_index);
  v.attribute("class_start", a.class_start, {.min = 0});
  v.attribute("total_classes", a.total_classes, {.min = 0});
  v.attribute("label_smoothing", a.label_smoothing, {.min = 0, .max = 1});
  v.attribute("logit_scale", a.logit_scale);
  v.attribute("lse_square_scale", a.lse_square_scale, {.min = 0});
  v.attribute("softcap", a.softcap, {.min = 0, .exclude_min = true, .allow_infinite = true});
  v.option("reduction", a.reduction, kReductionNames);
  v.option("empty_mean", a.empty_mean, kEmptyMeanNames);
}

// Workspace: per-row losses when the result is reduced (8 T bytes at most), else 0.
// Errors: as validation; unsupported_shape when V < 1; invalid_argument when class_start + V > total_classes.
struct CrossEntropyForward : CrossEntropyOptions {
  Tensor logits;          // [T, V] f32/f16/bf16
  Tensor labels;          // [T] i32/i64, global class ids
  Tensor normalizer;      // [1] f32 > 0, optional: divisor of `mean`
  Tensor loss;            // [T] with reduction none, else [1]; f32
  Tensor z_loss;          // as loss; the z-loss part of it, for logging, optional
  Tensor lse;             // [T] f32, saved for backward, optional
  Tensor invalid_labels;  // [2] i64, optional: [0] += rows with invalid labels, [1] = min of it and those rows
};

template <class V>
void describe(V& v, CrossEntropyForward& a) {
  describe_options(v, a);
  const Dim T = v.dim("T"), classes = v.dim("V");
  const Shape reduced = a.reduction == Reduction::none ? Shape{T} : Shape{1};
  v.input("logits", a.logits, {T, classes});
  v.input("labels", a.labels, {T}, {.types = kIndex, .content = {Content::labels, classes, a.ignore_index}});
  v.input("normalizer", a.normalizer, {1},
          {.presence = Presence::optional, .types = kF32, .content = {Content::positive}});
  v.output("loss", a.loss, reduced, {.types = kF32});
  v.output("z_loss", a.z_loss, reduced, {.presence = Presence::optional, .types = kF32});
  v.saved("lse", a.lse, {T}, {.presence = Presence::expected, .types = kF32});
  v.inout("invalid_labels", a.invalid_labels, {2},
          {.presence = Presence::optional, .types = only(DType::i64), .content = {Content::counters}});
}

Status check(const CrossEntropyForward&);
size_t workspace_bytes(const CrossEntropyForward&);
Status run(const CrossEntropyForward&, Workspace, Stream);

// Backward from the saved lse. With p = exp(z - lse), k = 1 - (z / softcap)^2, g = dloss (divided as `mean` says):
//
//   dlogits = g logit_scale k ((1 + 2 lse_square_scale lse) p - label_smoothing / K - (1 - label_smoothing) [v == label])
//
// formed in fp32 and rounded once. In place (dlogits exactly logits) destroys what was saved: a second backward
// over the same buffer is wrong by construction. Workspace: 256 bytes for `mean` without normalizer, else 0.
struct CrossEntropyBackward : CrossEntropyOptions {
  Tensor logits;      // [T, V]
  Tensor labels;      // [T]
  Tensor normalizer;  // [1] f32, optional
  Tensor lse;         // [T] f32, from forward (over all shards)
  Tensor dloss;       // [T] with reduction none, else [1]; f32; stride 0 allowed
  Tensor dlogits;     // [T, V] dtype of logits; may be exactly logits
};

template <class V>
void describe(V& v, CrossEntropyBackward& a) {
  describe_options(v, a);
  const Dim T = v.dim("T"), classes = v.dim("V");
  v.input("logits", a.logits, {T, classes});
  v.input("labels", a.labels, {T}, {.types = kIndex, .content = {Content::labels, classes, a.ignore_index}});
  v.input("normalizer", a.normalizer, {1},
          {.presence = Presence::optional, .types = kF32, .content = {Content::positive}});
  v.input("lse", a.lse, {T}, {.types = kF32});
  v.input("dloss", a.dloss, a.reduction == Reduction::none ? Shape{T} : Shape{1}, {.types = kF32});
  v.output("dlogits", a.dlogits, {T, classes}, {.like = &a.logits, .alias = &a.logits});
}

Status check(const CrossEntropyBackward&);
size_t workspace_bytes(const CrossEntropyBackward&);
Status run(const CrossEntropyBackward&, Workspace, Stream);

// Forward and gradient in one pass over the logits, for an upstream gradient that is known up front
// (null: 1). Reads each logit once and writes its gradient once; dlogits is normally the logits themselves.
// Outputs, formulas and label rules as above. Workspace as forward, plus 256 bytes for `mean` without normalizer, plus
// 4 T bytes when lse is null and rows are too long for the chip (V above 180000 in 16 bit, 90000 in f32).
struct CrossEntropyForwardBackward : CrossEntropyOptions {
  Tensor logits;          // [T, V]
  Tensor labels;          // [T]
  Tensor normalizer;      // [1] f32, optional
  Tensor dloss;           // [T] with reduction none, else [1]; f32, optional
  Tensor loss;            // [T] with reduction none, else [1]; f32
  Tensor z_loss;          // as loss, optional
  Tensor lse;             // [T] f32, optional
  Tensor dlogits;         // [T, V] dtype of logits; may be exactly logits
  Tensor invalid_labels;  // [2] i64, optional
};

template <class V>
void describe(V& v, CrossEntropyForwardBackward& a) {
  describe_options(v, a);
  const Dim T = v.dim("T"), classes = v.dim("V");
  const Shape reduced = a.reduction == Reduction::none ? Shape{T} : Shape{1};
  v.input("logits", a.logits, {T, classes});
  v.input("labels", a.labels, {T}, {.types = kIndex, .content = {Content::labels, classes, a.ignore_index}});
  v.input("normalizer", a.normalizer, {1},
          {.presence = Presence::optional, .types = kF32, .content = {Content::positive}});
  v.input("dloss", a.dloss, reduced, {.presence = Presence::optional, .types = kF32});
  v.output("loss", a.loss, reduced, {.types = kF32});
  v.output("z_loss", a.z_loss, reduced, {.presence = Presence::optional, .types = kF32});
  v.output("lse", a.lse, {T}, {.presence = Presence::optional, .types = kF32});
  v.output("dlogits", a.dlogits, {T, classes}, {.like = &a.logits, .alias = &a.logits});
  v.inout("invalid_labels", a.invalid_labels, {2},
          {.presence = Presence::optional, .types = only(DType::i64), .content = {Content::counters}});
}

Status check(const CrossEntropyForwardBackward&);
size_t workspace_bytes(const CrossEntropyForwardBackward&);
Status run(const CrossEntropyForwardBackward&, Workspace, Stream);

}  // namespace fla
