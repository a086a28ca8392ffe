// Cross entropy over vocabulary shards: the statistics kernel of one rank, and the merge of all ranks' pairs.
#include "fla/cross_entropy_shards.h"

#include "fla/validate.h"
#include "loss/cross_entropy.cuh"

namespace fla {
namespace detail {
namespace {

constexpr int kThreads = 256;

struct CombineArgs {
  LogitArgs rows;  // no logits: labels, outputs, z-loss
  const float* stats = nullptr;
  int64_t ranks = 0, stride_p = 0, stride_t = 0;
};

FLA_KERNEL void FLA_BOUNDS(kThreads, 1) combine_kernel(FLA_PARAMETERS CombineArgs a) {
  const int64_t row = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (row >= a.rows.rows) return;
  if (load_index(a.rows.labels, row * a.rows.label_stride) == a.rows.ignore_index)
    return store_skipped_row(a.rows, row, LabelState::ignored);
  const auto at = [&](int64_t rank) { return a.stats + rank * a.stride_p + row * a.stride_t; };
  float top = -INFINITY, rest = 0.0f, sum = 0.0f;
  for (int64_t rank = 0; rank < a.ranks; ++rank) {
    top = math::max_with_nan(top, load_float(at(rank)));
    rest += load_float(at(rank) + 1);
  }
  const float base = top == -INFINITY ? 0.0f : top;
  for (int64_t rank = 0; rank < a.ranks; ++rank) sum += math::exp(load_float(at(rank)) - base);
  const float lse = base + math::log(sum);
  const float z_loss = a.rows.z_loss_factor == 0.0f ? 0.0f : a.rows.z_loss_factor * lse * lse;
  store_row(a.rows, row, rest + lse + z_loss, z_loss, lse);
}

size_t row_bytes(const CrossEntropyShardCombine& a) {
  return a.reduction == Reduction::none ? 0 : align_workspace(static_cast<size_t>(a.labels.size[0]) * sizeof(float));
}

}  // namespace
}  // namespace detail

using namespace detail;

Status check(const CrossEntropyShardStats& a) {
  if (Status s = check_classes(a.logits.size[1]); !s.ok()) return s;
  return check_shard(a.class_start, a.logits.size[1], a.total_classes);
}
Status check(const CrossEntropyShardCombine& a) {
  if (a.stats.size[0] < 1) return error(StatusCode::unsupported_shape, "stats: P = 0 ranks");
  return {};
}

size_t workspace_bytes(const CrossEntropyShardStats&) { return 0; }
size_t workspace_bytes(const CrossEntropyShardCombine& a) { return a.z_loss ? 2 * row_bytes(a) : row_bytes(a); }

Status run(const CrossEntropyShardStats& a, Workspace, Stream stream) {
  if (Status s = validate(a); !s.ok()) return s;
  LogitArgs args = rows_of(a.logits, a.labels, a.ignore_index);
  if (args.rows == 0) return {};
  set_chain(args, a.logit_scale, a.softcap);
  args.class_start = a.class_start;
  if (a.total_classes != 0) args.total_classes = a.total_classes;
  args.smoothing = a.label_smoothing;
  args.smoothing_per_class = static_cast<float>(static_cast<double>(a.label_smoothing) / static_cast<double>(args.total_classes));
  args.without_lse = true;
  args.lse_out = static_cast<float*>(a.stats.data);
  args.loss_rows = args.lse_out + 1;
  args.lse_out_stride = args.loss_stride = a.stats.stride[0];
  args.invalid_labels = static_cast<int64_t*>(a.invalid_labels.data);
  return cross_entropy_statistics(args, a.logits.dtype, stream);
}

Status run(const CrossEntropyShardCombine& a, Workspace workspace, Stream stream) {
  if (Status s = validate(a); !s.ok()) return s;
  if (Status s = check_workspace(workspace, workspace_bytes(a)); !s.ok()) return s;
  const bool whole = a.reduction == Reduction::none;
  auto* scratch = static_cast<char*>(workspace.data);
  CombineArgs args;
  args.stats = static_cast<const float*>(a.stats.data);
  args.ranks = a.stats.size[0];
  args.stride_p = a.stats.stride[0];
  args.stride_t = a.stats.stride[1];
  LogitArgs& rows = args.rows;
  rows.labels = any_index(a.labels);
  rows.label_stride = a.labels.stride[0];
  rows.rows = a.labels.size[0];
  rows.ignore_index = a.ignore_index;
  rows.z_loss_factor = a.lse_square_scale;
  rows.lse_out = static_cast<float*>(a.lse.data);
  rows.lse_out_stride = a.lse ? a.lse.stride[0] : 0;
  rows.loss_rows = whole ? static_cast<float*>(a.loss.data) : reinterpret_cast<float*>(scratch);
  rows.loss_stride = whole ? a.loss.stride[0] : 1;
  if (a.z_loss) {
    rows.z_loss_rows = whole ? static_cast<float*>(a.z_loss.data) : reinterpret_cast<float*>(scratch + row_bytes(a));
    rows.z_loss_stride = whole ? a.z_loss.stride[0] : 1;
  }
  if (rows.rows > 0) {
    const Launch shape{.grid = divide_up(rows.rows, kThreads), .block = kThreads, .stream = stream};
    if (Status s = launch<&combine_kernel>(shape, args); !s.ok()) return s;
  }
  if (whole) return {};
  LossReduction r;
  r.loss_rows = rows.loss_rows;
  r.z_loss_rows = rows.z_loss_rows;
  r.loss = static_cast<float*>(a.loss.data);
  r.z_loss = static_cast<float*>(a.z_loss.data);
  r.normalizer = static_cast<const float*>(a.normalizer.data);
  r.mean = a.reduction == Reduction::mean;
  r.empty_is_nan = a.empty_mean == EmptyMean::nan;
  return reduce_losses(r, rows, stream);
}

}  // namespace fla
