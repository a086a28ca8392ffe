// The launchers behind the three forms of cross entropy.
#pragma once

#include <cmath>

#include "common/dispatch.h"
#include "common/launch.h"
#include "common/workspace.h"
#include "loss/logit_row.cuh"

namespace fla::detail {

inline constexpr int kLossThreads = 512;

// The options of a loss and its rows; outputs and upstream are the caller's to set.
LogitArgs cross_entropy_args(const CrossEntropyOptions& options, const Tensor& logits, const Tensor& labels);

// Reads every row once; fills loss_rows, z_loss_rows, lse_out, invalid_labels.
Status cross_entropy_statistics(const LogitArgs& a, DType dtype, Stream stream);
// Writes dlogits from the saved lse.
Status cross_entropy_gradient(const LogitArgs& a, DType dtype, Stream stream);
// Both at once with the row kept on chip. `keeps_row` says whether it can.
bool keeps_row(const LogitArgs& a, DType dtype);
Status cross_entropy_fused(const LogitArgs& a, DType dtype, Stream stream);

// Counts the labels that are not ignored into *divisor.
Status count_valid_labels(const LogitArgs& a, float* divisor, Stream stream);

// loss = weighted sum of rows, divided for `mean` by the normalizer or by the labels not ignored; likewise z_loss.
struct LossReduction {
  const float* loss_rows = nullptr;
  const float* z_loss_rows = nullptr;
  const float* weights = nullptr;  // of the rows; null: 1
  int64_t weight_stride = 0;
  float* loss = nullptr;
  float* z_loss = nullptr;
  const float* normalizer = nullptr;
  bool mean = false, empty_is_nan = false;
};
Status reduce_losses(const LossReduction& r, const LogitArgs& a, Stream stream);

inline Status check_classes(int64_t columns) {
  if (columns < 1) return error(StatusCode::unsupported_shape, "logits: V = 0 classes");
  if (columns > 0x7fffffff - 65536) return error(StatusCode::unsupported_shape, "logits: 2^31 classes");
  return {};
}

inline Status check_shard(int64_t class_start, int64_t columns, int64_t total_classes) {
  if (total_classes != 0 && (columns > total_classes || class_start > total_classes - columns))
    return error(StatusCode::invalid_argument, "class_start: %lld + V exceeds total_classes %lld",
                 static_cast<long long>(class_start), static_cast<long long>(total_classes));
  if (total_classes == 0 && class_start != 0) return error(StatusCode::invalid_argument, "class_start: needs total_classes");
  return {};
}

// Rows of logits [T, V] and, if there are any, their labels; everything else as by default.
inline LogitArgs rows_of(const Tensor& logits, const Tensor& labels, int64_t ignore_index) {
  LogitArgs args;
  args.logits = logits.data;
  args.logits_stride = logits.stride[0];
  args.labels = any_index(labels);
  args.label_stride = labels.stride[0];
  args.rows = logits.size[0];
  args.columns = static_cast<int32_t>(logits.size[1]);
  args.ignore_index = ignore_index;
  args.total_classes = logits.size[1];
  return args;
}

inline void set_chain(LogitArgs& args, float scale, float softcap) {
  args.scale = scale;
  if (!std::isfinite(softcap)) return;
  args.cap = softcap;
  args.scale_over_cap = scale / softcap;
}

// Whether a row of logits and its row of gradients meet 16-byte boundaries at the same columns.
inline bool rows_in_step(const LogitArgs& a, DType dtype) {
  const auto apart = reinterpret_cast<uintptr_t>(a.logits) - reinterpret_cast<uintptr_t>(a.dlogits);
  return apart % 16 == 0 && (a.logits_stride - a.dlogits_stride) * size_of(dtype) % 16 == 0;
}

}  // namespace fla::detail
