// The engine behind the linear losses: products with chunks of logits between them.
#pragma once

#include "fla/linear_loss.h"

namespace fla::detail {

// The three forms of linear cross entropy as one: fields as in fla/linear_loss.h, absent where a form has none.
struct LinearLossCall {
  LinearCrossEntropyOptions options;
  Tensor x, weight, bias, labels, normalizer, token_weights, dloss;
  Tensor loss, z_loss, lse, invalid_labels;  // loss absent: lse is given, not made
  Tensor dx, dweight, dbias;
  bool accumulate = false;

  bool makes_loss() const { return static_cast<bool>(loss); }
  bool makes_gradients() const { return dx || dweight || dbias; }
};

Status check_linear_loss(const LinearLossCall&);
LinearLossPlan plan_linear_loss(const LinearLossCall&);
// Arguments validated, a workspace of the plan's size.
Status run_linear_loss(const LinearLossCall&, Workspace, Stream);

}  // namespace fla::detail
