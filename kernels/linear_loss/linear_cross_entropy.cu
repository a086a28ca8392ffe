// Linear cross entropy: its forms as calls of the engine in linear_loss.cu.
#include "fla/linear_loss_shards.h"
#include "fla/validate.h"
#include "linear_loss/linear_loss.h"

namespace fla {
namespace {

using detail::LinearLossCall;

template <class A>
LinearLossCall inputs_of(const A& a) {
  return {.options = a, .x = a.x, .weight = a.weight, .bias = a.bias, .labels = a.labels, .normalizer = a.normalizer,
          .token_weights = a.token_weights};
}
template <class A>
void set_losses(LinearLossCall& c, const A& a) {
  c.loss = a.loss;
  c.z_loss = a.z_loss;
  c.lse = a.lse;
  c.invalid_labels = a.invalid_labels;
}
template <class A>
void set_gradients(LinearLossCall& c, const A& a) {
  c.dloss = a.dloss;
  c.dx = a.dx;
  c.dweight = a.dweight;
  c.dbias = a.dbias;
  c.accumulate = a.accumulate;
}

LinearLossCall call_of(const LinearCrossEntropyForward& a) {
  LinearLossCall c = inputs_of(a);
  set_losses(c, a);
  return c;
}
LinearLossCall call_of(const LinearCrossEntropyBackward& a) {
  LinearLossCall c = inputs_of(a);
  c.lse = a.lse;
  set_gradients(c, a);
  return c;
}
LinearLossCall call_of(const LinearCrossEntropyForwardBackward& a) {
  LinearLossCall c = inputs_of(a);
  set_losses(c, a);
  set_gradients(c, a);
  return c;
}

// The pairs are losses without their log-sum-exps, next to those.
LinearLossCall call_of(const LinearCrossEntropyShardStats& a) {
  LinearLossCall c{.options = a, .x = a.x, .weight = a.weight, .bias = a.bias, .labels = a.labels};
  c.options.reduction = Reduction::none;
  c.options.lse_square_scale = 0;
  c.lse = c.loss = a.stats;
  c.lse.rank = c.loss.rank = 1;
  if (a.stats) c.loss.data = static_cast<float*>(a.stats.data) + a.stats.stride[1];
  c.invalid_labels = a.invalid_labels;
  c.without_lse = true;
  return c;
}

template <class A>
Status validate_and_run(const A& a, Workspace workspace, Stream stream) {
  if (Status s = validate(a); !s.ok()) return s;
  return detail::run_linear_loss(call_of(a), workspace, stream);
}

}  // namespace

Status check(const LinearCrossEntropyForward& a) { return check_linear_loss(call_of(a)); }
Status check(const LinearCrossEntropyBackward& a) { return check_linear_loss(call_of(a)); }
Status check(const LinearCrossEntropyForwardBackward& a) { return check_linear_loss(call_of(a)); }
Status check(const LinearCrossEntropyShardStats& a) { return check_linear_loss(call_of(a)); }

LinearLossPlan plan(const LinearCrossEntropyForward& a) { return plan_linear_loss(call_of(a)); }
LinearLossPlan plan(const LinearCrossEntropyBackward& a) { return plan_linear_loss(call_of(a)); }
LinearLossPlan plan(const LinearCrossEntropyForwardBackward& a) { return plan_linear_loss(call_of(a)); }
LinearLossPlan plan(const LinearCrossEntropyShardStats& a) { return plan_linear_loss(call_of(a)); }

size_t workspace_bytes(const LinearCrossEntropyForward& a) { return plan(a).workspace_bytes; }
size_t workspace_bytes(const LinearCrossEntropyBackward& a) { return plan(a).workspace_bytes; }
size_t workspace_bytes(const LinearCrossEntropyForwardBackward& a) { return plan(a).workspace_bytes; }
size_t workspace_bytes(const LinearCrossEntropyShardStats& a) { return plan(a).workspace_bytes; }

Status run(const LinearCrossEntropyForward& a, Workspace w, Stream s) { return validate_and_run(a, w, s); }
Status run(const LinearCrossEntropyBackward& a, Workspace w, Stream s) { return validate_and_run(a, w, s); }
Status run(const LinearCrossEntropyForwardBackward& a, Workspace w, Stream s) { return validate_and_run(a, w, s); }
Status run(const LinearCrossEntropyShardStats& a, Workspace w, Stream s) { return validate_and_run(a, w, s); }

}  // namespace fla
