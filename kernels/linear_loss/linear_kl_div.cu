// Linear divergence: chunks of student's and teacher's logits, the divergence's pass between the products.
#include "common/gemm.h"
#include "fla/linear_kl_div.h"
#include "fla/validate.h"
#include "linear/parts.h"
#include "linear_loss/linear_loss.h"

namespace fla {
namespace {

using namespace detail;

Status divergence_of(const void* call, const LogitChunk& chunk, Stream stream) {
  const auto& a = *static_cast<const LinearKlDivForwardBackward*>(call);
  KlDivForwardBackward pass;
  pass.logits = pass.dlogits = chunk.logits;
  pass.target_logits = chunk.target_logits;
  pass.labels = chunk.rows_of(a.labels);
  pass.loss = dense(chunk.losses, DType::f32, {chunk.tokens});
  pass.ignore_index = a.ignore_index;
  pass.temperature = a.temperature;
  pass.beta = a.beta;
  pass.divergence = a.divergence;
  pass.reduction = Reduction::none;
  return run(pass, {}, stream);
}

LinearLossCall call_of(const LinearKlDivForwardBackward& a) {
  LinearLossCall c{.x = a.x, .weight = a.weight, .labels = a.labels, .normalizer = a.normalizer, .dloss = a.dloss,
                   .loss = a.loss, .dx = a.dx, .dweight = a.dweight, .accumulate = a.accumulate,
                   .pass = {divergence_of, &a, a.target_x, a.target_weight}};
  c.options.ignore_index = a.ignore_index;
  c.options.reduction = a.reduction;
  c.options.empty_mean = a.empty_mean;
  c.options.strategy = LinearLossStrategy::fast;
  c.options.chunk = a.chunk;
  c.options.workspace_limit = a.workspace_limit;
  return c;
}

}  // namespace

Status check(const LinearKlDivForwardBackward& a) {
  if (a.reduction == Reduction::none)
    return error(StatusCode::invalid_argument, "reduction: none has no gradient before dloss is known");
  if (a.target_x.size[1] < 1) return error(StatusCode::unsupported_shape, "target_x: G = 0");
  return first_error({check_linear_loss(call_of(a)), check_rows("target_x", a.target_x),
                      check_rows("target_weight", a.target_weight)});
}

LinearLossPlan plan(const LinearKlDivForwardBackward& a) { return plan_linear_loss(call_of(a)); }
size_t workspace_bytes(const LinearKlDivForwardBackward& a) { return plan(a).workspace_bytes; }
Status run(const LinearKlDivForwardBackward& a, Workspace workspace, Stream stream) {
  if (Status s = validate(a); !s.ok()) return s;
  return run_linear_loss(call_of(a), workspace, stream);
}

}  // namespace fla
