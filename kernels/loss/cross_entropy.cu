// Cross entropy: validation and the sequence of launches. No host ever reads the label count: `mean` counts on the
// device, in a kernel of a few microseconds before the gradient, or in the one that sums the rows' losses.
#include "loss/cross_entropy.cuh"

#include "common/workspace.h"
#include "fla/validate.h"

namespace fla {
namespace {

using namespace detail;

template <class A>
Status check_common(const A& a) {
  const int64_t columns = a.logits.size[1];
  if (Status s = check_classes(columns); !s.ok()) return s;
  return check_shard(a.class_start, columns, a.total_classes);
}

template <class A>
LogitArgs logit_args(const A& a) {
  LogitArgs args = rows_of(a.logits, a.labels, a.ignore_index);
  args.class_start = a.class_start;
  if (a.total_classes != 0) args.total_classes = a.total_classes;
  set_chain(args, a.logit_scale, a.softcap);
  args.smoothing = a.label_smoothing;
  args.smoothing_per_class = static_cast<float>(static_cast<double>(a.label_smoothing) / static_cast<double>(args.total_classes));
  args.z_loss_factor = a.lse_square_scale;
  args.empty_divisor_is_zero = a.empty_mean == EmptyMean::zero;
  return args;
}

template <class A>
void set_upstream(LogitArgs& args, const A& a) {
  args.dlogits = a.dlogits.data;
  args.dlogits_stride = a.dlogits.stride[0];
  args.dloss = static_cast<const float*>(a.dloss.data);
  args.dloss_stride = a.reduction == Reduction::none && a.dloss ? a.dloss.stride[0] : 0;
}

template <class A>
bool counts_labels(const A& a) {
  return a.reduction == Reduction::mean && !a.normalizer;
}

// Where rows' losses go: the caller's tensors, or the workspace when they are reduced afterwards.
template <class A>
size_t row_loss_bytes(const A& a) {
  if (a.reduction == Reduction::none) return 0;
  const size_t rows = align_workspace(static_cast<size_t>(a.logits.size[0]) * sizeof(float));
  return a.z_loss ? 2 * rows : rows;
}

size_t lse_bytes(const CrossEntropyForwardBackward& a) {
  LogitArgs args = logit_args(a);
  args.dlogits = a.dlogits.data;
  args.dlogits_stride = a.dlogits.stride[0];
  if (a.lse || keeps_row(args, a.logits.dtype)) return 0;
  return align_workspace(static_cast<size_t>(args.rows) * sizeof(float));
}

template <class A>
LossReduction set_losses(LogitArgs& args, const A& a, char* workspace) {
  args.lse_out = static_cast<float*>(a.lse.data);
  args.lse_out_stride = a.lse ? a.lse.stride[0] : 0;
  args.invalid_labels = static_cast<int64_t*>(a.invalid_labels.data);
  LossReduction r;
  r.loss = static_cast<float*>(a.loss.data);
  r.z_loss = static_cast<float*>(a.z_loss.data);
  if (a.reduction == Reduction::none) {
    args.loss_rows = r.loss;
    args.z_loss_rows = r.z_loss;
    args.loss_stride = a.loss.stride[0];
    args.z_loss_stride = a.z_loss ? a.z_loss.stride[0] : 0;
    return r;
  }
  args.loss_rows = reinterpret_cast<float*>(workspace);
  if (r.z_loss)
    args.z_loss_rows = reinterpret_cast<float*>(workspace + align_workspace(static_cast<size_t>(args.rows) * sizeof(float)));
  r.loss_rows = args.loss_rows;
  r.z_loss_rows = args.z_loss_rows;
  r.normalizer = static_cast<const float*>(a.normalizer.data);
  r.mean = a.reduction == Reduction::mean;
  r.empty_is_nan = a.empty_mean == EmptyMean::nan;
  return r;
}

// The divisor of the upstream gradient: the caller's, or counted into the workspace.
template <class A>
Status set_divisor(LogitArgs& args, const A& a, char* workspace, Stream stream) {
  if (a.reduction != Reduction::mean) return {};
  if (a.normalizer) {
    args.divisor = static_cast<const float*>(a.normalizer.data);
    return {};
  }
  auto* divisor = reinterpret_cast<float*>(workspace);
  args.divisor = divisor;
  return count_valid_labels(args, divisor, stream);
}

}  // namespace

LogitArgs detail::cross_entropy_args(const CrossEntropyOptions& options, const Tensor& logits, const Tensor& labels) {
  CrossEntropyBackward a;
  static_cast<CrossEntropyOptions&>(a) = options;
  a.logits = logits;
  a.labels = labels;
  return logit_args(a);
}

Status check(const CrossEntropyForward& a) { return check_common(a); }
Status check(const CrossEntropyBackward& a) { return check_common(a); }
Status check(const CrossEntropyForwardBackward& a) { return check_common(a); }

size_t workspace_bytes(const CrossEntropyForward& a) { return row_loss_bytes(a); }
size_t workspace_bytes(const CrossEntropyBackward& a) {
  return counts_labels(a) && a.logits.size[0] > 0 ? kWorkspaceAlignment : 0;
}
size_t workspace_bytes(const CrossEntropyForwardBackward& a) {
  return row_loss_bytes(a) + lse_bytes(a) + (counts_labels(a) && a.logits.size[0] > 0 ? kWorkspaceAlignment : 0);
}

Status run(const CrossEntropyForward& a, Workspace workspace, Stream stream) {
  if (Status s = validate(a); !s.ok()) return s;
  if (Status s = check_workspace(workspace, workspace_bytes(a)); !s.ok()) return s;
  LogitArgs args = logit_args(a);
  const LossReduction reduction = set_losses(args, a, static_cast<char*>(workspace.data));
  if (args.rows > 0)
    if (Status s = cross_entropy_statistics(args, a.logits.dtype, stream); !s.ok()) return s;
  return a.reduction == Reduction::none ? Status{} : reduce_losses(reduction, args, stream);
}

Status run(const CrossEntropyBackward& a, Workspace workspace, Stream stream) {
  if (Status s = validate(a); !s.ok()) return s;
  if (Status s = check_workspace(workspace, workspace_bytes(a)); !s.ok()) return s;
  LogitArgs args = logit_args(a);
  if (args.rows == 0) return {};
  set_upstream(args, a);
  args.lse = static_cast<const float*>(a.lse.data);
  args.lse_stride = a.lse.stride[0];
  if (Status s = set_divisor(args, a, static_cast<char*>(workspace.data), stream); !s.ok()) return s;
  return cross_entropy_gradient(args, a.logits.dtype, stream);
}

Status run(const CrossEntropyForwardBackward& a, Workspace workspace, Stream stream) {
  if (Status s = validate(a); !s.ok()) return s;
  if (Status s = check_workspace(workspace, workspace_bytes(a)); !s.ok()) return s;
  LogitArgs args = logit_args(a);
  const DType dtype = a.logits.dtype;
  set_upstream(args, a);
  auto* scratch = static_cast<char*>(workspace.data);
  const LossReduction reduction = set_losses(args, a, scratch);
  scratch += row_loss_bytes(a);
  if (args.rows > 0) {
    if (lse_bytes(a) > 0) {
      args.lse_out = reinterpret_cast<float*>(scratch);
      args.lse_out_stride = 1;
      scratch += lse_bytes(a);
    }
    if (Status s = set_divisor(args, a, scratch, stream); !s.ok()) return s;
    Status s;
    if (keeps_row(args, dtype)) {
      s = cross_entropy_fused(args, dtype, stream);
    } else {
      s = cross_entropy_statistics(args, dtype, stream);
      args.lse = args.lse_out;
      args.lse_stride = args.lse_out_stride;
      if (s.ok()) s = cross_entropy_gradient(args, dtype, stream);
    }
    if (!s.ok()) return s;
  }
  return a.reduction == Reduction::none ? Status{} : reduce_losses(reduction, args, stream);
}

}  // namespace fla
