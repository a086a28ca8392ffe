// GRPO from logits is cross entropy with other factors: one small kernel finds every row's token, the cross-entropy
// kernels walk the rows, and forward another small one forms the loss of log-probabilities. All of what they exchange
// is 12 bytes per row.
#include "common/mask.cuh"
#include "common/workspace.h"
#include "fla/policy_loss.h"
#include "fla/validate.h"
#include "loss/cross_entropy.cuh"
#include "loss/policy_terms.cuh"

namespace fla {
namespace detail {
namespace {

constexpr int kThreads = 256;
constexpr int32_t kIgnored = -1, kInvalid = -2;  // both no class

struct GrpoArgs {
  LogitArgs rows;  // of all sequences, one after another
  DType dtype = DType::f32;
  AnyIndex ids;
  int64_t ids_stride = 0, first_id = 0;
  int64_t tokens = 0;  // L
  MaskOperand mask;
  TokenFloats ref_logp, advantages, lse, dloss, loss, kl;
  float beta = 0;
  // By row of logits.
  int32_t* labels = nullptr;
  float* upstream = nullptr;  // backward: of -logp
  float* lse_rows = nullptr;
  float* nll_rows = nullptr;
};

FLA_DEVICE bool this_row(const GrpoArgs& a, int64_t& row, int64_t& b, int64_t& l) {
  row = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  b = row / (a.tokens + 1);
  l = row - b * (a.tokens + 1);
  return row < a.rows.rows;
}

// The label of every row; backward, its factor and lse too.
FLA_KERNEL void FLA_BOUNDS(kThreads, 1) label_kernel(FLA_PARAMETERS GrpoArgs a) {
  int64_t row, b, l;
  if (!this_row(a, row, b, l)) return;
  int32_t label = kIgnored;
  if (l < a.tokens && !(a.mask && a.mask.read(b, l) == 0.0f)) {
    const int64_t id = load_index(a.ids, b * a.ids_stride + a.first_id + l);
    label = id >= 0 && id < a.rows.columns ? static_cast<int32_t>(id) : kInvalid;
  }
  a.labels[row] = label;
  if (!a.upstream) return;
  float lse = 0.0f, upstream = 0.0f;
  if (label >= 0) {
    lse = a.lse.read(b, l);
    const float logit = load_float(AnyFloat{a.rows.logits, a.dtype}, row * a.rows.logits_stride + label);
    float slope = a.advantages.read(b);
    if (a.beta != 0.0f) slope += a.beta * k3_slope(a.ref_logp.read(b, l) - (logit - lse));
    upstream = a.dloss.read(b, l) * slope;
  }
  a.upstream[row] = upstream;
  a.lse_rows[row] = lse;
}

FLA_KERNEL void FLA_BOUNDS(kThreads, 1) loss_kernel(FLA_PARAMETERS GrpoArgs a) {
  int64_t row, b, l;
  if (!this_row(a, row, b, l) || l == a.tokens) return;
  float loss = 0.0f, kl = 0.0f;
  if (a.labels[row] != kIgnored) {
    const float nll = a.nll_rows[row];  // NaN if the id is invalid, or no logit has a probability
    if (a.ref_logp) kl = k3(a.ref_logp.read(b, l) + nll);
    loss = a.beta == 0.0f ? -a.advantages.read(b) : a.beta * kl - a.advantages.read(b);
    if (nll != nll) loss = nll;
  }
  a.loss.write(b, l, loss);
  if (a.kl) a.kl.write(b, l, kl);
  if (a.lse) a.lse.write(b, l, a.lse_rows[row]);
}

template <class A>
Status check_grpo(const A& a) {
  if (Status s = check_classes(a.logits.size[2]); !s.ok()) return s;
  if (a.logits.size[1] < 2) return error(StatusCode::unsupported_shape, "logits: L = 0 tokens");
  if (a.input_ids.size[1] < a.logits.size[1] - 1)
    return error(StatusCode::unsupported_shape, "input_ids: %lld tokens for L = %lld",
                 static_cast<long long>(a.input_ids.size[1]), static_cast<long long>(a.logits.size[1] - 1));
  if (a.beta != 0 && !a.ref_logp) return error(StatusCode::null_pointer, "ref_logp: required when beta is not 0");
  if (!collapse_rows(a.logits)) return error(StatusCode::bad_stride, "logits: sequences do not step evenly");
  return {};
}

template <class A>
GrpoArgs grpo_args(const A& a, WorkspaceParts& parts) {
  GrpoArgs args;
  args.rows = rows_of(collapse_rows(a.logits), {}, kIgnored);
  args.dtype = a.logits.dtype;
  args.ids = any_index(a.input_ids);
  args.ids_stride = a.input_ids.stride[0];
  args.tokens = a.logits.size[1] - 1;
  args.first_id = a.input_ids.size[1] - args.tokens;
  args.mask = mask_operand(a.completion_mask);
  args.ref_logp = token_floats(a.ref_logp);
  args.advantages = token_floats(a.advantages);
  args.lse = token_floats(a.lse);
  args.beta = a.beta;
  const auto bytes = static_cast<size_t>(args.rows.rows) * 4;
  args.labels = static_cast<int32_t*>(parts.take(bytes));
  args.lse_rows = static_cast<float*>(parts.take(bytes));
  args.rows.labels = {args.labels, DType::i32};
  args.rows.label_stride = 1;
  return args;
}

Launch by_row(const GrpoArgs& a, Stream stream) {
  return {.grid = divide_up(a.rows.rows, kThreads), .block = kThreads, .stream = stream};
}

template <class A>
size_t grpo_workspace(const A& a) {
  return 3 * align_workspace(static_cast<size_t>(a.logits.size[0] * a.logits.size[1]) * 4);
}

}  // namespace
}  // namespace detail

using namespace detail;

Status check(const GrpoLossForward& a) {
  if (a.kl && !a.ref_logp) return error(StatusCode::null_pointer, "ref_logp: required for kl");
  return check_grpo(a);
}
Status check(const GrpoLossBackward& a) {
  if (!collapse_rows(a.dlogits)) return error(StatusCode::bad_stride, "dlogits: sequences do not step evenly");
  return check_grpo(a);
}

size_t workspace_bytes(const GrpoLossForward& a) { return grpo_workspace(a); }
size_t workspace_bytes(const GrpoLossBackward& a) { return grpo_workspace(a); }

Status run(const GrpoLossForward& a, Workspace workspace, Stream stream) {
  if (Status s = validate(a); !s.ok()) return s;
  if (Status s = check_workspace(workspace, workspace_bytes(a)); !s.ok()) return s;
  WorkspaceParts parts(workspace.data);
  GrpoArgs args = grpo_args(a, parts);
  if (args.rows.rows == 0) return {};
  args.nll_rows = static_cast<float*>(parts.take(static_cast<size_t>(args.rows.rows) * 4));
  args.loss = token_floats(a.loss);
  args.kl = token_floats(a.kl);
  args.rows.loss_rows = args.nll_rows;
  args.rows.lse_out = args.lse_rows;
  args.rows.invalid_labels = static_cast<int64_t*>(a.invalid_labels.data);
  if (Status s = launch<&label_kernel>(by_row(args, stream), args); !s.ok()) return s;
  if (Status s = cross_entropy_statistics(args.rows, args.dtype, stream); !s.ok()) return s;
  return launch<&loss_kernel>(by_row(args, stream), args);
}

Status run(const GrpoLossBackward& a, Workspace workspace, Stream stream) {
  if (Status s = validate(a); !s.ok()) return s;
  if (Status s = check_workspace(workspace, workspace_bytes(a)); !s.ok()) return s;
  WorkspaceParts parts(workspace.data);
  GrpoArgs args = grpo_args(a, parts);
  if (args.rows.rows == 0) return {};
  args.upstream = static_cast<float*>(parts.take(static_cast<size_t>(args.rows.rows) * 4));
  args.dloss = token_floats(a.dloss);
  const Tensor dlogits = collapse_rows(a.dlogits);
  args.rows.dlogits = dlogits.data;
  args.rows.dlogits_stride = dlogits.stride[0];
  args.rows.lse = args.lse_rows;
  args.rows.lse_stride = 1;
  args.rows.dloss = args.upstream;
  args.rows.dloss_stride = 1;
  if (Status s = launch<&label_kernel>(by_row(args, stream), args); !s.ok()) return s;
  return cross_entropy_gradient(args.rows, args.dtype, stream);
}

}  // namespace fla
