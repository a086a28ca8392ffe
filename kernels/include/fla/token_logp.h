// Log-sum-exp, and the log-probabilities of given tokens with their entropy: what losses on log-probabilities start from.
#pragma once

#include "fla/loss.h"

namespace fla {

// The chain from stored logit to z, as in cross entropy:
//   z = softcap * tanh(logit_scale * logit / softcap)       (softcap infinite: z = logit_scale * logit)
struct LogitChainOptions {
  float logit_scale = 1;  // finite, any sign; 1 / temperature
  float softcap = std::numeric_limits<float>::infinity();  // > 0; infinite: none
};

template <class V>
void describe_options(V& v, LogitChainOptions& a) {
  v.attribute("logit_scale", a.logit_scale);
  v.attribute("softcap", a.softcap, {.min = 0, .exclude_min = true, .allow_infinite = true});
}

// lse = log sum_v exp(z_v) of every row, in fp32; a result of 16 bits is for display only. A row of -inf gives -inf.
// Errors: as validation; unsupported_shape when V < 1. No workspace.
struct LogSumExpForward : LogitChainOptions {
  Tensor logits;  // [T, V] f32/f16/bf16, any row stride and alignment
  Tensor lse;     // [T] f32, or f16/bf16
};

template <class V>
void describe(V& v, LogSumExpForward& a) {
  describe_options(v, a);
  const Dim T = v.dim("T"), classes = v.dim("V");
  v.input("logits", a.logits, {T, classes});
  v.output("lse", a.lse, {T});
}

Status check(const LogSumExpForward&);
size_t workspace_bytes(const LogSumExpForward&);
Status run(const LogSumExpForward&, Workspace, Stream);

// dlogits = dlse logit_scale (1 - (z / softcap)^2) exp(z - lse), formed in fp32 and rounded once.
struct LogSumExpBackward : LogitChainOptions {
  Tensor logits;   // [T, V]
  Tensor lse;      // [T] f32
  Tensor dlse;     // [T] f32
  Tensor dlogits;  // [T, V] dtype of logits; may be exactly logits
};

template <class V>
void describe(V& v, LogSumExpBackward& a) {
  describe_options(v, a);
  const Dim T = v.dim("T"), classes = v.dim("V");
  v.input("logits", a.logits, {T, classes});
  v.input("lse", a.lse, {T}, {.types = kF32});
  v.input("dlse", a.dlse, {T}, {.types = kF32});
  v.output("dlogits", a.dlogits, {T, classes}, {.like = &a.logits, .alias = &a.logits});
}

Status check(const LogSumExpBackward&);
size_t workspace_bytes(const LogSumExpBackward&);
Status run(const LogSumExpBackward&, Workspace, Stream);

// Log-probability of one token per row and entropy of the row, in one read of the logits:
//
//   logp = z_label - lse        entropy = lse - sum_v exp(z_v - lse) z_v     (0 log 0 = 0)
//
// A label equal to ignore_index gives 0 for all, whatever the logits hold. A label outside [0, V) gives logp and
// entropy NaN, lse and gradient 0, counts in `invalid_labels`, and never forms an address. No workspace.
struct SelectiveLogSoftmaxForward : LogitChainOptions {
  Tensor logits;          // [T, V] f32/f16/bf16, any row stride and alignment
  Tensor labels;          // [T] i32/i64
  Tensor logp;            // [T] f32
  Tensor entropy;         // [T] f32, optional
  Tensor lse;             // [T] f32, saved for backward, optional
  Tensor invalid_labels;  // [2] i64, optional: [0] += rows with invalid labels, [1] = min of it and those rows
  int64_t ignore_index = -100;
};

template <class V>
void describe(V& v, SelectiveLogSoftmaxForward& a) {
  describe_options(v, a);
  v.attribute("ignore_index", a.ignore_index);
  const Dim T = v.dim("T"), classes = v.dim("V");
  v.input("logits", a.logits, {T, classes});
  v.input("labels", a.labels, {T}, {.types = kIndex, .content = {Content::labels, classes, a.ignore_index}});
  v.output("logp", a.logp, {T}, {.types = kF32});
  v.output("entropy", a.entropy, {T}, {.presence = Presence::optional, .types = kF32});
  v.saved("lse", a.lse, {T}, {.presence = Presence::expected, .types = kF32});
  v.inout("invalid_labels", a.invalid_labels, {2},
          {.presence = Presence::optional, .types = only(DType::i64), .content = {Content::counters}});
}

Status check(const SelectiveLogSoftmaxForward&);
size_t workspace_bytes(const SelectiveLogSoftmaxForward&);
Status run(const SelectiveLogSoftmaxForward&, Workspace, Stream);

// With p = exp(z - lse) and k = 1 - (z / softcap)^2:
//
//   dlogits = logit_scale k (dlogp ([v == label] - p) - dentropy p (log p + entropy))
//
// formed in fp32 and rounded once. Errors: as validation; null_pointer when dentropy comes without entropy.
struct SelectiveLogSoftmaxBackward : LogitChainOptions {
  Tensor logits;    // [T, V]
  Tensor labels;    // [T]
  Tensor lse;       // [T] f32, from forward
  Tensor entropy;   // [T] f32, from forward, needed with dentropy
  Tensor dlogp;     // [T] f32
  Tensor dentropy;  // [T] f32, optional
  Tensor dlogits;   // [T, V] dtype of logits; may be exactly logits
  int64_t ignore_index = -100;
};

template <class V>
void describe(V& v, SelectiveLogSoftmaxBackward& a) {
  describe_options(v, a);
  v.attribute("ignore_index", a.ignore_index);
  const Dim T = v.dim("T"), classes = v.dim("V");
  v.input("logits", a.logits, {T, classes});
  v.input("labels", a.labels, {T}, {.types = kIndex, .content = {Content::labels, classes, a.ignore_index}});
  v.input("lse", a.lse, {T}, {.types = kF32});
  v.input("entropy", a.entropy, {T}, {.presence = Presence::optional, .types = kF32});
  v.input("dlogp", a.dlogp, {T}, {.types = kF32});
  v.input("dentropy", a.dentropy, {T}, {.presence = Presence::optional, .types = kF32, .with = &a.entropy});
  v.output("dlogits", a.dlogits, {T, classes}, {.like = &a.logits, .alias = &a.logits});
}

Status check(const SelectiveLogSoftmaxBackward&);
size_t workspace_bytes(const SelectiveLogSoftmaxBackward&);
Status run(const SelectiveLogSoftmaxBackward&, Workspace, Stream);

}  // namespace fla
