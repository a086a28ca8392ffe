// Log-sum-exp and selective log-softmax: the kernels of cross entropy with other factors.
#include "fla/token_logp.h"

#include "fla/validate.h"
#include "loss/cross_entropy.cuh"

namespace fla {
namespace {

using namespace detail;

template <class A>
LogitArgs chained_rows(const A& a, const Tensor& labels, int64_t ignore_index) {
  LogitArgs args = rows_of(a.logits, labels, ignore_index);
  set_chain(args, a.logit_scale, a.softcap);
  return args;
}

void set_gradient(LogitArgs& args, const Tensor& lse, const Tensor& upstream, const Tensor& dlogits) {
  args.lse = static_cast<const float*>(lse.data);
  args.lse_stride = lse.stride[0];
  args.dloss = static_cast<const float*>(upstream.data);
  args.dloss_stride = upstream.stride[0];
  args.dlogits = dlogits.data;
  args.dlogits_stride = dlogits.stride[0];
}

}  // namespace

Status check(const LogSumExpForward& a) { return check_classes(a.logits.size[1]); }
Status check(const LogSumExpBackward& a) { return check_classes(a.logits.size[1]); }
Status check(const SelectiveLogSoftmaxForward& a) { return check_classes(a.logits.size[1]); }
Status check(const SelectiveLogSoftmaxBackward& a) { return check_classes(a.logits.size[1]); }

size_t workspace_bytes(const LogSumExpForward&) { return 0; }
size_t workspace_bytes(const LogSumExpBackward&) { return 0; }
size_t workspace_bytes(const SelectiveLogSoftmaxForward&) { return 0; }
size_t workspace_bytes(const SelectiveLogSoftmaxBackward&) { return 0; }

Status run(const LogSumExpForward& a, Workspace, Stream stream) {
  if (Status s = validate(a); !s.ok()) return s;
  LogitArgs args = chained_rows(a, {}, 0);
  args.lse_out = static_cast<float*>(a.lse.data);
  args.lse_out_dtype = a.lse.dtype;
  args.lse_out_stride = a.lse.stride[0];
  return args.rows == 0 ? Status{} : cross_entropy_statistics(args, a.logits.dtype, stream);
}

Status run(const LogSumExpBackward& a, Workspace, Stream stream) {
  if (Status s = validate(a); !s.ok()) return s;
  LogitArgs args = chained_rows(a, {}, 0);
  set_gradient(args, a.lse, a.dlse, a.dlogits);
  return args.rows == 0 ? Status{} : cross_entropy_gradient(args, a.logits.dtype, stream);
}

Status run(const SelectiveLogSoftmaxForward& a, Workspace, Stream stream) {
  if (Status s = validate(a); !s.ok()) return s;
  LogitArgs args = chained_rows(a, a.labels, a.ignore_index);
  args.loss_rows = static_cast<float*>(a.logp.data);
  args.loss_stride = a.logp.stride[0];
  args.loss_scale = -1;
  args.entropy_rows = static_cast<float*>(a.entropy.data);
  args.entropy_stride = a.entropy ? a.entropy.stride[0] : 0;
  args.lse_out = static_cast<float*>(a.lse.data);
  args.lse_out_stride = a.lse ? a.lse.stride[0] : 0;
  args.invalid_labels = static_cast<int64_t*>(a.invalid_labels.data);
  return args.rows == 0 ? Status{} : cross_entropy_statistics(args, a.logits.dtype, stream);
}

Status run(const SelectiveLogSoftmaxBackward& a, Workspace, Stream stream) {
  if (Status s = validate(a); !s.ok()) return s;
  LogitArgs args = chained_rows(a, a.labels, a.ignore_index);
  set_gradient(args, a.lse, a.dlogp, a.dlogits);
  args.upstream_scale = -1;  // cross entropy is -logp
  if (a.dentropy) {
    args.entropy = static_cast<const float*>(a.entropy.data);
    args.entropy_stride = a.entropy.stride[0];
    args.dentropy = static_cast<const float*>(a.dentropy.data);
    args.dentropy_stride = a.dentropy.stride[0];
  }
  return args.rows == 0 ? Status{} : cross_entropy_gradient(args, a.logits.dtype, stream);
}

}  // namespace fla
