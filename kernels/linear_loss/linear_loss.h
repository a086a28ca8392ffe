// The engine behind the linear losses: products with chunks of logits between them.
#pragma once

#include "fla/linear_loss.h"

namespace fla::detail {

// Tokens [first, first + tokens) of a call, between the products.
struct LogitChunk {
  Tensor logits;         // [tokens, V], overwritten by their gradient where gradients are asked for
  Tensor target_logits;  // likewise, of the teacher
  int64_t first = 0, tokens = 0;
  float* losses = nullptr;  // [tokens], where the engine reduces them

  // These tokens of a [T] tensor.
  Tensor rows_of(Tensor t) const {
    if (!t) return t;
    t.data = static_cast<char*>(t.data) + first * t.stride[0] * size_of(t.dtype);
    t.size[0] = tokens;
    return t;
  }
};

// What a loss other than cross entropy does with a chunk; fast strategy only.
struct LogitPass {
  Status (*run)(const void* args, const LogitChunk&, Stream) = nullptr;
  const void* args = nullptr;
  Tensor target_x, target_weight;  // of the teacher, where there is one
};

// A linear loss of any kind: fields as in fla/linear_loss.h, absent where a form has none.
struct LinearLossCall {
  LinearCrossEntropyOptions options = {};
  Tensor x = {}, weight = {}, bias = {}, labels = {}, normalizer = {}, token_weights = {}, dloss = {};
  Tensor loss = {}, z_loss = {}, lse = {}, invalid_labels = {};  // loss absent: lse is given, not made
  Tensor dx = {}, dweight = {}, dbias = {};
  bool accumulate = false;
  float sign = 1;  // -1: the loss is a log-probability
  bool without_lse = false;  // of the loss, which is that of a shard
  Tensor entropy = {}, dentropy = {};  // entropy: made with the loss, else given
  Tensor argmax = {};
  LogitPass pass = {};

  bool makes_loss() const { return static_cast<bool>(loss); }
  bool makes_gradients() const { return dx || dweight || dbias; }
  bool has_penalty() const { return options.l2_warp_factor != 0 && makes_gradients(); }
};

Status check_linear_loss(const LinearLossCall&);
LinearLossPlan plan_linear_loss(const LinearLossCall&);
// Arguments validated, a workspace of the plan's size.
Status run_linear_loss(const LinearLossCall&, Workspace, Stream);

}  // namespace fla::detail
