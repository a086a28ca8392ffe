// Losses of the last linear layer, without its [T, V] logits in memory.
#pragma once

#include "fla/loss.h"

namespace fla {

// How a linear loss bounds its memory; `automatic` chooses by workspace_limit.
//   fast  tokens in chunks, whole rows of logits: three products forward and backward (6 T H V flops)
//   lean  classes in chunks, all tokens: logits are made again behind the statistics (8 T H V), but a chunk of dweight is
//         finished by one product, so that no fp32 copy of a 16-bit dweight is needed
enum class LinearLossStrategy : int32_t { automatic, fast, lean };
inline constexpr const char* kLinearLossStrategyNames[] = {"automatic", "fast", "lean"};

// What runs. Every sum's order follows from it, so it is a function of shapes, dtypes and attributes alone.
struct LinearLossPlan {
  LinearLossStrategy strategy = LinearLossStrategy::fast;
  int64_t chunk = 0;   // tokens of fast, classes of lean
  int64_t chunks = 0;
  size_t workspace_bytes = 0;
};

// Cross entropy (CrossEntropyForward's formula, label rules and attributes) of
//
//   logits = x weight^T + bias       fp32 sums, rounded once to the dtype of x
//
// weight and bias may be a shard of the vocabulary, as logits in CrossEntropyForward: fla/linear_loss_shards.h. The mean
// divides by the tokens not ignored of the whole call, whatever the chunks. With token_weights w the loss is
// sum_t w_t loss_t, over the same divisor.
//
// l2_warp_factor adds to the gradients, not to the loss, those of
//
//   dloss l2_warp_factor / (2 T) sum_t max_v(logits[t, v])^2       T: all tokens, ignored ones too
//
// (L2WarpForward, of which the first maximum takes the whole gradient). It goes into dlogits[t, argmax[t]] in fp32,
// before that is rounded.
//
// Workspace, exactly, each term rounded up to 256 bytes, C = chunk, n = chunks, e = bytes per element of x, R64 rounding
// up to 64:
//   fast  e C R64(V), 4 V H for a dweight of 16 bits when n > 1, 4 V n and 4 V ceil(C / 64) for dbias
//   lean  e T R64(C), 4 T H for a dx of 16 bits when n > 1, twice 4 T n for the statistics of chunks, 4 V and
//         4 C ceil(T / 64) for dbias
//   both  4 T each for the losses and z-losses that are reduced, for the lse of fwd_bwd where it is not asked for, and for
//         maximum and argmax with l2_warp_factor,
//         512 for the divisor, and what the largest product may use (32 MiB at most, none without a GPU)
// fast has 4096 tokens in a chunk unless `chunk` says otherwise or `workspace_limit` (bytes; 0: none) is lower. Then the
// first that fits of: fast by 2048 and 1024 tokens, lean by 8192 down to 1024 classes, fast by 512 down to 128 tokens,
// lean by 512 down to 64 classes. Nothing fits: workspace_too_small.
//
// Lean backward with l2_warp_factor makes the logits twice. The penalty costs a read of the logits beside.
//
// Errors: as CrossEntropyForward; unsupported_shape for H = 0; invalid_argument for token_weights or l2_warp_factor
// with reduction none, or l2_warp_factor with total_classes; bad_stride for matrices whose rows overlap. Deterministic, no
// host synchronisation.
struct LinearCrossEntropyOptions : CrossEntropyOptions {
  LinearLossStrategy strategy = LinearLossStrategy::automatic;
  int64_t chunk = 0;            // tokens of fast, classes of lean; 0: chosen
  int64_t workspace_limit = 0;  // bytes; 0: none
  float l2_warp_factor = 0;     // >= 0; RWKV: 1e-4
};

// Of any linear loss that chooses between the strategies.
template <class V, class A>
void describe_strategy(V& v, A& a) {
  v.option("strategy", a.strategy, kLinearLossStrategyNames);
  v.attribute("chunk", a.chunk, {.min = 0});
  v.attribute("workspace_limit", a.workspace_limit, {.min = 0});
}

template <class V>
void describe_options(V& v, LinearCrossEntropyOptions& a) {
  describe_options(v, static_cast<CrossEntropyOptions&>(a));
  describe_strategy(v, a);
  v.attribute("l2_warp_factor", a.l2_warp_factor, {.min = 0});
}

namespace detail {
// x, weight, bias and labels.
template <class V, class A>
void describe_linear_logits(V& v, A& a, Dim T, Dim H, Dim classes) {
  v.input("x", a.x, {T, H});
  v.input("weight", a.weight, {classes, H}, {.like = &a.x});
  v.input("bias", a.bias, {classes}, {.presence = Presence::optional, .like = &a.x});
  v.input("labels", a.labels, {T}, {.types = kIndex, .content = {Content::labels, classes, a.ignore_index}});
}
// With normalizer and token_weights, of any of the structs below.
template <class V, class A>
void describe_linear_loss_inputs(V& v, A& a, Dim T, Dim H, Dim classes) {
  describe_linear_logits(v, a, T, H, classes);
  const Rule factor{.presence = Presence::optional, .types = kF32, .content = {Content::positive}};
  v.input("normalizer", a.normalizer, {1}, factor);
  v.input("token_weights", a.token_weights, {T}, factor);
}
template <class V, class A>
void describe_linear_loss_outputs(V& v, A& a, Dim T) {
  const Shape reduced = a.reduction == Reduction::none ? Shape{T} : Shape{1};
  v.output("loss", a.loss, reduced, {.types = kF32});
  v.output("z_loss", a.z_loss, reduced, {.presence = Presence::optional, .types = kF32});
}
// Optional each. dx of the dtype of x or f32; accumulate adds to f32.
template <class V, class A>
void describe_linear_loss_gradients(V& v, A& a, Dim T, Dim H, Dim classes) {
  v.output("dx", a.dx, {T, H}, {.presence = Presence::expected});
  describe_gradient(v, "dweight", a.dweight, {classes, H}, a.accumulate, {.presence = Presence::expected});
  describe_gradient(v, "dbias", a.dbias, {classes}, a.accumulate, {.presence = Presence::optional});
}
}  // namespace detail

// Loss alone: 2 T H V flops, either strategy.
struct LinearCrossEntropyForward : LinearCrossEntropyOptions {
  Tensor x;               // [T, H] f32/f16/bf16
  Tensor weight;          // [V, H] dtype of x
  Tensor bias;            // [V] dtype of x, optional
  Tensor labels;          // [T] i32/i64
  Tensor normalizer;      // [1] f32 > 0, optional: divisor of `mean`
  Tensor token_weights;   // [T] f32 > 0, optional
  Tensor loss;            // [T] with reduction none, else [1]; f32
  Tensor z_loss;          // as loss, optional, for logging
  Tensor lse;             // [T] f32, saved for backward, optional
  Tensor invalid_labels;  // [2] i64, optional: as CrossEntropyForward
};

template <class V>
void describe(V& v, LinearCrossEntropyForward& a) {
  describe_options(v, a);
  const Dim T = v.dim("T"), H = v.dim("H"), classes = v.dim("V");
  detail::describe_linear_loss_inputs(v, a, T, H, classes);
  detail::describe_linear_loss_outputs(v, a, T);
  v.saved("lse", a.lse, {T}, {.presence = Presence::expected, .types = kF32});
  v.inout("invalid_labels", a.invalid_labels, {2},
          {.presence = Presence::optional, .types = only(DType::i64), .content = {Content::counters}});
}

LinearLossPlan plan(const LinearCrossEntropyForward&);
Status check(const LinearCrossEntropyForward&);
size_t workspace_bytes(const LinearCrossEntropyForward&);
Status run(const LinearCrossEntropyForward&, Workspace, Stream);

// Backward from the saved lse with an upstream gradient per token (or one, for a reduced loss): logits are made again.
// With dlogits as CrossEntropyBackward forms them for upstream gradient g_t of the row, rounded once to the dtype of x:
//
//   dx = alpha dlogits weight    dweight = alpha dlogits^T x    dbias = alpha sum_t dlogits      (accumulate: +=)
//
// fp32 sums, one rounding at the end. g_t = dloss_t and alpha = 1 with reduction none; else g_t = token_weights_t or 1 and
// alpha = dloss / divisor, applied to the fp32 sums, so that a gradient over N tokens does not vanish in f16.
// Only the gradients whose pointers are set are computed. T = 0 writes zeros to dweight and dbias.
struct LinearCrossEntropyBackward : LinearCrossEntropyOptions {
  Tensor x, weight, bias, labels, normalizer, token_weights;  // as forward
  Tensor lse;                // [T] f32, from forward
  Tensor dloss;              // [T] with reduction none, else [1]; f32
  Tensor dx;                 // [T, H] dtype of x, or f32
  Tensor dweight;            // [V, H] any float; f32 costs no scratch
  Tensor dbias;              // [V] any float
  bool accumulate = false;   // add to dweight and dbias, which are f32 then
};

template <class V>
void describe(V& v, LinearCrossEntropyBackward& a) {
  describe_options(v, a);
  v.attribute("accumulate", a.accumulate);
  const Dim T = v.dim("T"), H = v.dim("H"), classes = v.dim("V");
  detail::describe_linear_loss_inputs(v, a, T, H, classes);
  v.input("lse", a.lse, {T}, {.types = kF32});
  v.input("dloss", a.dloss, a.reduction == Reduction::none ? Shape{T} : Shape{1}, {.types = kF32});
  detail::describe_linear_loss_gradients(v, a, T, H, classes);
}

LinearLossPlan plan(const LinearCrossEntropyBackward&);
Status check(const LinearCrossEntropyBackward&);
size_t workspace_bytes(const LinearCrossEntropyBackward&);
Status run(const LinearCrossEntropyBackward&, Workspace, Stream);

// Loss and gradients in one call, for an upstream gradient that is known up front (null: 1): reduction mean or sum.
// Outputs and formulas as above. Errors also: invalid_argument for reduction none.
struct LinearCrossEntropyForwardBackward : LinearCrossEntropyOptions {
  Tensor x, weight, bias, labels, normalizer, token_weights;  // as forward
  Tensor dloss;                   // [1] f32, optional
  Tensor loss, z_loss;            // [1] f32; z_loss optional
  Tensor lse;                     // [T] f32, optional
  Tensor dx, dweight, dbias;      // as backward
  Tensor invalid_labels;          // [2] i64, optional
  bool accumulate = false;        // as backward
};

template <class V>
void describe(V& v, LinearCrossEntropyForwardBackward& a) {
  describe_options(v, a);
  v.attribute("accumulate", a.accumulate);
  const Dim T = v.dim("T"), H = v.dim("H"), classes = v.dim("V");
  detail::describe_linear_loss_inputs(v, a, T, H, classes);
  v.input("dloss", a.dloss, {1}, {.presence = Presence::optional, .types = kF32});
  detail::describe_linear_loss_outputs(v, a, T);
  v.output("lse", a.lse, {T}, {.presence = Presence::optional, .types = kF32});
  detail::describe_linear_loss_gradients(v, a, T, H, classes);
  v.inout("invalid_labels", a.invalid_labels, {2},
          {.presence = Presence::optional, .types = only(DType::i64), .content = {Content::counters}});
}

LinearLossPlan plan(const LinearCrossEntropyForwardBackward&);
Status check(const LinearCrossEntropyForwardBackward&);
size_t workspace_bytes(const LinearCrossEntropyForwardBackward&);
Status run(const LinearCrossEntropyForwardBackward&, Workspace, Stream);

}  // namespace fla
