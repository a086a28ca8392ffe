// Linear losses through chunks of logits in the caller's workspace, all flops in products. At 8192 x 4096 x 128256 in bf16:
// fast, three products 36 ms at 680-720 TFLOP/s and a pass over the chunk in place at 4 bytes a logit 1.03 ms (one block
// keeps a row on chip); lean, four products 48-50 ms, the statistics 0.5 ms and the gradient's pass 1.0 ms. Logits are
// rounded to the dtype of x between product and pass, so that a chunk costs 2 bytes a logit; a product with the
// statistics in its epilogue would take the place of the first product and the statistics' pass, in project().
// Ignored rows are not gathered apart: the library's products take their shapes from the host, which does not know them.
// Rows of a chunk start at multiples of 64 classes: products of unaligned rows run at half speed.
#include "linear_loss/linear_loss.h"

#include "linear_loss/linear_loss_parts.h"

namespace fla::detail {
namespace {

constexpr int64_t kFastChunk = 4096;

// Everything of one call that its chunks share.
class LinearLoss {
 public:
  LinearLoss(const LinearLossCall& call, const LinearLossParts& parts, Stream stream)
      : c_(call), p_(parts), stream_(stream), dtype_(call.x.dtype) {}

  Status run() {
    set_rows();
    if (Status s = set_scale(); !s.ok()) return s;
    Status s = p_.plan.strategy == LinearLossStrategy::lean ? lean() : fast();
    if (!s.ok()) return s;
    if (p_.dweight.data != c_.dweight.data)
      if (s = copy_rows(p_.dweight, c_.dweight, stream_); !s.ok()) return s;
    if (p_.dx.data != c_.dx.data)
      if (s = copy_rows(p_.dx, c_.dx, stream_); !s.ok()) return s;
    if (s = finish_bias(); !s.ok()) return s;
    return c_.makes_loss() && c_.options.reduction != Reduction::none ? reduce_losses(reduction_, rows_, stream_) : s;
  }

 private:
  // Labels, upstream and outputs of all T rows.
  void set_rows() {
    Tensor logits = p_.logits;
    logits.size[0] = p_.T;
    logits.size[1] = p_.V;
    rows_ = cross_entropy_args(c_.options, logits, c_.labels);
    const Tensor& g = c_.options.reduction == Reduction::none ? c_.dloss : c_.token_weights;
    rows_.dloss = static_cast<const float*>(g.data);
    rows_.dloss_stride = g.stride[0];
    rows_.without_lse = c_.without_lse;
    rows_.upstream_scale = rows_.loss_scale = c_.sign;
    rows_.entropy = static_cast<const float*>(c_.entropy.data);
    rows_.entropy_stride = c_.entropy.stride[0];
    rows_.dentropy = static_cast<const float*>(c_.dentropy.data);
    rows_.dentropy_stride = c_.dentropy.stride[0];
    rows_.dlogits = rows_.logits;
    rows_.dlogits_stride = rows_.logits_stride;
    if (p_.lse) {
      rows_.lse_out = p_.lse;
    } else {
      rows_.lse_out = static_cast<float*>(c_.lse.data);
      rows_.lse_out_stride = c_.lse.stride[0];
    }
    rows_.lse = rows_.lse_out;
    rows_.lse_stride = rows_.lse_out_stride;
    if (!c_.makes_loss()) return;
    rows_.invalid_labels = static_cast<int64_t*>(c_.invalid_labels.data);
    rows_.entropy_rows = static_cast<float*>(c_.entropy.data);
    if (p_.losses) {
      rows_.loss_rows = p_.losses;
      rows_.z_loss_rows = p_.z_losses;
    } else {
      rows_.loss_rows = static_cast<float*>(c_.loss.data);
      rows_.loss_stride = c_.loss.stride[0];
      rows_.z_loss_rows = static_cast<float*>(c_.z_loss.data);
      rows_.z_loss_stride = c_.z_loss.stride[0];
    }
    reduction_ = {.loss_rows = p_.losses,
                  .z_loss_rows = p_.z_losses,
                  .weights = static_cast<const float*>(c_.token_weights.data),
                  .weight_stride = c_.token_weights.stride[0],
                  .loss = static_cast<float*>(c_.loss.data),
                  .z_loss = static_cast<float*>(c_.z_loss.data),
                  .normalizer = static_cast<const float*>(c_.normalizer.data),
                  .mean = c_.options.reduction == Reduction::mean,
                  .empty_is_nan = c_.options.empty_mean == EmptyMean::nan};
  }

  // The factor of all gradients, on the device: only the device knows how many tokens count.
  Status set_scale() {
    if (!c_.makes_gradients()) return {};
    const auto* divisor = static_cast<const float*>(c_.normalizer.data);
    if (c_.options.reduction != Reduction::mean) divisor = nullptr;
    else if (!divisor) {
      divisor = p_.divisor;
      if (Status s = count_valid_labels(rows_, p_.divisor, stream_); !s.ok()) return s;
    }
    const bool per_row = c_.options.reduction == Reduction::none;
    const auto tokens = static_cast<double>(std::max<int64_t>(p_.T, 1));
    return launch<&scale_kernel>({.block = 32, .stream = stream_}, p_.scale,
                                 per_row ? nullptr : static_cast<const float*>(c_.dloss.data), divisor,
                                 static_cast<float>(c_.options.l2_warp_factor / tokens));
  }

  // Rows [first, first + n) of the call.
  LogitArgs rows_from(int64_t first, int64_t n) const {
    LogitArgs a = rows_;
    const auto shift = [first](auto*& pointer, int64_t stride) {
      if (pointer) pointer += first * stride;
    };
    if (a.labels)
      a.labels.data = static_cast<const char*>(a.labels.data) + first * a.label_stride * size_of(a.labels.dtype);
    shift(a.dloss, a.dloss_stride);
    shift(a.lse, a.lse_stride);
    shift(a.loss_rows, a.loss_stride);
    shift(a.z_loss_rows, a.z_loss_stride);
    shift(a.lse_out, a.lse_out_stride);
    shift(a.entropy_rows, a.entropy_stride);
    shift(a.entropy, a.entropy_stride);
    shift(a.dentropy, a.dentropy_stride);
    a.first_row = first;
    a.rows = n;
    return a;
  }

  Status project(const Tensor& x, const Tensor& weight, const Tensor& bias, const Tensor& logits) {
    return gemm({.a = x, .b = weight, .c = logits, .bias = bias, .transpose_b = true}, p_.product, stream_);
  }
  Status add_dx(const Tensor& dlogits, const Tensor& weight, const Tensor& dx, bool accumulate) {
    if (!dx) return {};
    return gemm({.a = dlogits, .b = weight, .c = dx, .accumulate = accumulate, .device_alpha = p_.scale}, p_.product,
                stream_);
  }
  Status add_dweight(const Tensor& dlogits, const Tensor& x, const Tensor& dweight, bool accumulate) {
    if (!dweight) return {};
    return gemm({.a = dlogits, .b = x, .c = dweight, .transpose_a = true, .accumulate = accumulate || c_.accumulate,
                 .device_alpha = p_.scale},
                p_.product, stream_);
  }
  Status add_dbias(const Tensor& dlogits, float* sums) {
    if (!c_.dbias) return {};
    return sum_columns(dlogits, dense(sums, DType::f32, {dlogits.size[1]}), p_.bias_partials, stream_);
  }
  Status finish_bias() {
    if (!c_.dbias) return {};
    const int64_t chunks = p_.plan.strategy == LinearLossStrategy::lean ? 1 : p_.plan.chunks;
    return launch<&finish_bias_kernel>({.grid = divide_up(p_.V, kLinearLossThreads), .block = kLinearLossThreads, .stream = stream_},
                                       any_float(c_.dbias), p_.bias_sums, p_.scale, chunks, p_.V, c_.accumulate);
  }

  // Statistics, gradient in place, or both, as the call asks.
  Status pass(const Tensor& logits, int64_t first) {
    const int64_t n = logits.size[0];
    if (!c_.pass.run) {
      const RowPeaks peaks = p_.peaks.from(first);
      if (Status s = find_peaks(logits, peaks, 0, stream_); !s.ok()) return s;
      const LogitArgs rows = rows_from(first, n);
      if (Status s = cross_entropy(rows); !s.ok()) return s;
      return add_penalty(rows, peaks);
    }
    const Tensor target = c_.pass.target_x ? rows_of(p_.target_logits, 0, n) : Tensor{};
    if (target)
      if (Status s = project(rows_of(c_.pass.target_x, first, n), c_.pass.target_weight, {}, target); !s.ok()) return s;
    return c_.pass.run(c_.pass.args, {logits, target, first, n, p_.losses ? p_.losses + first : nullptr}, stream_);
  }
  Status cross_entropy(const LogitArgs& a) {
    if (a.rows == 0) return {};
    if (!c_.makes_gradients()) return cross_entropy_statistics(a, dtype_, stream_);
    if (!c_.makes_loss()) return cross_entropy_gradient(a, dtype_, stream_);
    if (keeps_row(a, dtype_)) return cross_entropy_fused(a, dtype_, stream_);
    if (Status s = cross_entropy_statistics(a, dtype_, stream_); !s.ok()) return s;
    return cross_entropy_gradient(a, dtype_, stream_);
  }

  Status add_penalty(const LogitArgs& rows, const RowPeaks& peaks) {
    return c_.has_penalty() ? add_peaks(rows, dtype_, peaks, p_.scale + 3, stream_) : Status{};
  }

  Status fast() {
    for (int64_t i = 0; i < p_.plan.chunks; ++i) {
      const int64_t first = i * p_.plan.chunk, n = std::min(p_.plan.chunk, p_.T - first);
      const Tensor x = rows_of(c_.x, first, n), logits = rows_of(p_.logits, 0, n);
      if (Status s = project(x, c_.weight, c_.bias, logits); !s.ok()) return s;
      if (Status s = pass(logits, first); !s.ok()) return s;
      const Tensor dx = c_.dx ? rows_of(c_.dx, first, n) : Tensor{};
      if (Status s = add_dx(logits, c_.weight, dx, false); !s.ok()) return s;
      if (Status s = add_dweight(logits, x, p_.dweight, i > 0); !s.ok()) return s;
      if (Status s = add_dbias(logits, c_.dbias ? p_.bias_sums + i * p_.V : nullptr); !s.ok()) return s;
    }
    return {};
  }

  // Classes of chunk i as a shard of the vocabulary.
  struct Classes {
    Tensor weight, bias, logits;
    LogitArgs rows;
    int64_t first;
  };
  Classes classes_of(int64_t i) const {
    const int64_t first = i * p_.plan.chunk, n = std::min(p_.plan.chunk, p_.V - first);
    const Tensor bias = c_.bias ? columns_of(matrix(c_.bias.data, dtype_, 1, p_.V), first, n) : Tensor{};
    Classes c{rows_of(c_.weight, first, n), c_.bias ? dense(bias.data, dtype_, {n}) : Tensor{},
              columns_of(p_.logits, 0, n), rows_, first};
    c.rows.class_start += first;
    c.rows.columns = static_cast<int32_t>(n);
    return c;
  }

  Status lean() {
    if (c_.makes_loss() || p_.peaks)
      if (Status s = lean_statistics(); !s.ok()) return s;
    return c_.makes_gradients() ? lean_gradients() : Status{};
  }
  Status lean_statistics() {
    if (p_.T == 0) return {};
    for (int64_t i = 0; i < p_.plan.chunks; ++i) {
      Classes c = classes_of(i);
      if (Status s = project(c_.x, c.weight, c.bias, c.logits); !s.ok()) return s;
      if (Status s = find_peaks(c.logits, p_.peaks, c.first, stream_); !s.ok()) return s;
      if (!c_.makes_loss()) continue;
      c.rows.without_lse = true;
      c.rows.z_loss_factor = 0;
      c.rows.loss_scale = 1;
      c.rows.lse_out = p_.statistics.lse + i * p_.T;
      c.rows.loss_rows = p_.statistics.loss + i * p_.T;
      if (c.rows.entropy_rows) c.rows.entropy_rows = p_.statistics.entropy + i * p_.T;
      c.rows.z_loss_rows = nullptr;
      c.rows.lse_out_stride = c.rows.loss_stride = c.rows.entropy_stride = 1;
      if (i > 0) c.rows.invalid_labels = nullptr;  // counted once
      if (Status s = cross_entropy_statistics(c.rows, dtype_, stream_); !s.ok()) return s;
    }
    if (!c_.makes_loss()) return {};
    return launch<&combine_kernel>({.grid = divide_up(p_.T, kLinearLossThreads), .block = kLinearLossThreads, .stream = stream_}, rows_,
                                   p_.statistics);
  }
  Status lean_gradients() {
    for (int64_t i = 0; i < p_.plan.chunks; ++i) {
      const Classes c = classes_of(i);
      if (Status s = project(c_.x, c.weight, c.bias, c.logits); !s.ok()) return s;
      if (p_.T > 0) {
        if (Status s = cross_entropy_gradient(c.rows, dtype_, stream_); !s.ok()) return s;
        if (Status s = add_penalty(c.rows, p_.peaks); !s.ok()) return s;
      }
      if (Status s = add_dx(c.logits, c.weight, p_.dx, i > 0); !s.ok()) return s;
      const Tensor dweight = c_.dweight ? rows_of(c_.dweight, c.first, c.logits.size[1]) : Tensor{};
      if (Status s = add_dweight(c.logits, c_.x, dweight, false); !s.ok()) return s;
      if (Status s = add_dbias(c.logits, c_.dbias ? p_.bias_sums + c.first : nullptr); !s.ok()) return s;
    }
    return {};
  }

  const LinearLossCall& c_;
  const LinearLossParts& p_;
  Stream stream_;
  DType dtype_;
  LogitArgs rows_;
  LossReduction reduction_;
};

LinearLossPlan plan_of(const LinearLossCall& c, LinearLossStrategy strategy, int64_t chunk) {
  return LinearLossParts(c, strategy, chunk).plan;
}

}  // namespace

LinearLossPlan plan_linear_loss(const LinearLossCall& c) {
  using enum LinearLossStrategy;
  const LinearCrossEntropyOptions& o = c.options;
  const size_t limit = o.workspace_limit > 0 ? static_cast<size_t>(o.workspace_limit) : ~size_t{0};
  constexpr struct {
    LinearLossStrategy strategy;
    int64_t most, least;
  } order[] = {{fast, kFastChunk, 1024}, {lean, 8192, 1024}, {fast, 512, 128}, {lean, 512, 64}};
  LinearLossPlan smallest;
  for (const auto& [strategy, most, least] : order) {
    if (o.strategy != automatic && o.strategy != strategy) continue;
    if (o.chunk > 0) return plan_of(c, strategy, o.chunk);
    for (int64_t chunk = most; chunk >= least; chunk /= 2) {
      const LinearLossPlan plan = plan_of(c, strategy, chunk);
      if (plan.workspace_bytes <= limit) return plan;
      if (smallest.chunks == 0 || plan.workspace_bytes < smallest.workspace_bytes) smallest = plan;
    }
  }
  return smallest;
}

Status check_linear_loss(const LinearLossCall& c) {
  const LinearCrossEntropyOptions& o = c.options;
  const int64_t classes = c.weight.size[0];
  if (classes < 1) return error(StatusCode::unsupported_shape, "weight: V = 0 classes");
  if (classes > 0x7fffffff - 65536) return error(StatusCode::unsupported_shape, "weight: 2^31 classes");
  if (c.x.size[1] < 1) return error(StatusCode::unsupported_shape, "x: H = 0");
  if (Status s = check_shard(o.class_start, classes, o.total_classes); !s.ok()) return s;
  if (o.l2_warp_factor != 0 && o.total_classes != 0)
    return error(StatusCode::invalid_argument, "l2_warp_factor: not over a shard of the vocabulary");
  if (c.token_weights && o.reduction == Reduction::none)
    return error(StatusCode::invalid_argument, "token_weights: not with reduction none");
  if (o.l2_warp_factor != 0 && o.reduction == Reduction::none)
    return error(StatusCode::invalid_argument, "l2_warp_factor: not with reduction none");
  if (c.makes_loss() && c.makes_gradients() && o.reduction == Reduction::none)
    return error(StatusCode::invalid_argument, "reduction: none has no gradient before dloss is known");
  if (!c.makes_loss() && !c.makes_gradients())
    return error(StatusCode::invalid_argument, "dx: no output is asked for");
  return first_error({check_rows("x", c.x), check_rows("weight", c.weight),
                      check_weight_gradient("dx", c.dx, c.x.dtype), check_rows("dweight", c.dweight)});
}

Status run_linear_loss(const LinearLossCall& c, Workspace workspace, Stream stream) {
  const LinearLossPlan plan = plan_linear_loss(c);
  if (Status s = check_workspace(workspace, plan.workspace_bytes); !s.ok()) return s;
  if (c.options.workspace_limit > 0 && plan.workspace_bytes > static_cast<size_t>(c.options.workspace_limit))
    return error(StatusCode::workspace_too_small, "workspace_limit: %lld bytes, needs %zu",
                 static_cast<long long>(c.options.workspace_limit), plan.workspace_bytes);
  return LinearLoss(c, LinearLossParts(c, plan.strategy, plan.chunk, workspace.data), stream).run();
}

}  // namespace fla::detail
