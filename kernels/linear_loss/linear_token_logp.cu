// Log-probabilities of tokens: cross entropy by token of the engine in linear_loss.cu, with the other sign and the entropy.
#include "fla/linear_token_logp.h"

#include "fla/validate.h"
#include "linear_loss/linear_loss.h"

namespace fla {
namespace {

using detail::LinearLossCall;

template <class A>
LinearLossCall inputs_of(const A& a) {
  LinearLossCall c{.x = a.x, .weight = a.weight, .bias = a.bias, .labels = a.labels, .lse = a.lse, .entropy = a.entropy};
  c.options.reduction = Reduction::none;
  c.options.ignore_index = a.ignore_index;
  c.options.logit_scale = a.logit_scale;
  c.options.softcap = a.softcap;
  c.options.strategy = a.strategy;
  c.options.chunk = a.chunk;
  c.options.workspace_limit = a.workspace_limit;
  c.sign = -1;
  return c;
}

LinearLossCall call_of(const LinearTokenLogpForward& a) {
  LinearLossCall c = inputs_of(a);
  c.loss = a.logp;
  c.argmax = a.argmax;
  c.invalid_labels = a.invalid_labels;
  return c;
}
LinearLossCall call_of(const LinearTokenLogpBackward& a) {
  LinearLossCall c = inputs_of(a);
  c.dloss = a.dlogp;
  c.dentropy = a.dentropy;
  c.dx = a.dx;
  c.dweight = a.dweight;
  c.dbias = a.dbias;
  c.accumulate = a.accumulate;
  return c;
}

template <class A>
Status validate_and_run(const A& a, Workspace workspace, Stream stream) {
  if (Status s = validate(a); !s.ok()) return s;
  return detail::run_linear_loss(call_of(a), workspace, stream);
}

}  // namespace

Status check(const LinearTokenLogpForward& a) { return check_linear_loss(call_of(a)); }
Status check(const LinearTokenLogpBackward& a) { return check_linear_loss(call_of(a)); }

LinearLossPlan plan(const LinearTokenLogpForward& a) { return plan_linear_loss(call_of(a)); }
LinearLossPlan plan(const LinearTokenLogpBackward& a) { return plan_linear_loss(call_of(a)); }

size_t workspace_bytes(const LinearTokenLogpForward& a) { return plan(a).workspace_bytes; }
size_t workspace_bytes(const LinearTokenLogpBackward& a) { return plan(a).workspace_bytes; }

Status run(const LinearTokenLogpForward& a, Workspace w, Stream s) { return validate_and_run(a, w, s); }
Status run(const LinearTokenLogpBackward& a, Workspace w, Stream s) { return validate_and_run(a, w, s); }

}  // namespace fla
