// A row of logits as the loss kernels see it: label states, the chain from stored logit to z, and how a row of any
// alignment splits into scalars and 16-byte vectors.
#pragma once

#include "common/alignment.h"
#include "common/gpu.h"
#include "common/math.cuh"
#include "common/online_softmax.cuh"
#include "common/ptx.cuh"
#include "common/row_reduce.cuh"
#include "common/vector.cuh"
#include "fla/loss.h"

namespace fla::detail {

struct LogitArgs {
  void* logits = nullptr;
  void* dlogits = nullptr;
  int64_t logits_stride = 0, dlogits_stride = 0;
  AnyIndex labels;
  int64_t label_stride = 0;
  int64_t rows = 0;
  int32_t columns = 0;
  int32_t shared_vectors = 0;   // of a row that is kept on chip
  int64_t ignore_index = 0, class_start = 0, total_classes = 0;
  float scale = 1, scale_over_cap = 0, cap = 0;
  float smoothing = 0, smoothing_per_class = 0, z_loss_factor = 0;
  const float* lse = nullptr;         // backward: saved
  const float* dloss = nullptr;       // null: 1
  int64_t lse_stride = 0, dloss_stride = 0;
  const float* divisor = nullptr;     // of the upstream gradient; null: 1
  bool empty_divisor_is_zero = true;  // a divisor of 0 gives gradient 0
  float* loss_rows = nullptr;
  float* z_loss_rows = nullptr;       // may be absent
  float* lse_out = nullptr;           // may be absent
  int64_t loss_stride = 1, z_loss_stride = 1, lse_out_stride = 1;
  int64_t* invalid_labels = nullptr;  // may be absent
};

enum class LabelState { ignored, invalid, local, foreign };

struct Label {
  LabelState state;
  int32_t column;  // of this shard, where the label is local; else -1
};

FLA_DEVICE Label read_label(const LogitArgs& a, int64_t row) {
  const int64_t id = load_index(a.labels, row * a.label_stride);
  if (id == a.ignore_index) return {LabelState::ignored, -1};
  if (id < 0 || id >= a.total_classes) return {LabelState::invalid, -1};
  const int64_t column = id - a.class_start;
  if (column < 0 || column >= a.columns) return {LabelState::foreign, -1};
  return {LabelState::local, static_cast<int32_t>(column)};
}

// From the stored logit to z, and the slope dz / d(logit) without the scale.
template <bool kCapped>
struct LogitChain {
  static FLA_DEVICE float z(const LogitArgs& a, float logit) {
    if constexpr (kCapped) return a.cap * math::tanh(logit * a.scale_over_cap);
    else return logit * a.scale;
  }
  // The gradient of one logit before the upstream factor: slope (weight p - smoothing / K - [label] (1 - smoothing)).
  static FLA_DEVICE float gradient(const LogitArgs& a, float logit, float lse, float weight, bool is_label) {
    float slope = 1.0f, value;
    if constexpr (kCapped) {
      const float t = math::tanh(logit * a.scale_over_cap);
      slope = 1.0f - t * t;
      value = a.cap * t;
    } else {
      value = logit * a.scale;
    }
    float inner = fmaf(weight, math::exp(value - lse), -a.smoothing_per_class);
    if (is_label) inner -= 1.0f - a.smoothing;
    return slope * inner;
  }
};

// Columns [0, head) and [tail_start, columns) are scalars, between them lie 16-byte vectors.
template <class T>
struct RowSpan {
  static constexpr int kWidth = 16 / sizeof(T);
  int head, vectors, tail_start;

  FLA_DEVICE RowSpan(const T* row, int columns) {
    const auto past = static_cast<int>((reinterpret_cast<uintptr_t>(row) / sizeof(T)) % kWidth);
    head = past == 0 ? 0 : kWidth - past;
    if (head > columns) head = columns;
    vectors = (columns - head) / kWidth;
    tail_start = head + vectors * kWidth;
  }
  FLA_DEVICE int column(int vector) const { return head + vector * kWidth; }
  // The scalar column of this thread: heads on threads 0.., tails on threads 32..; -1 for none.
  FLA_DEVICE int scalar_column(int thread, int columns) const {
    if (thread < head) return thread;
    const int tail = tail_start + thread - kWarp;
    return thread >= kWarp && tail < columns ? tail : -1;
  }
};

// Running statistics of the logits that one thread has seen.
template <bool kCapped, bool kSum>
struct LogitStatistics {
  SoftmaxState softmax;
  float sum = 0.0f;  // of z, for smoothing

  template <int N>
  FLA_DEVICE void add(const LogitArgs& a, float (&logits)[N]) {
    float top = -INFINITY;
    FLA_UNROLL
    for (int i = 0; i < N; ++i) {
      logits[i] = LogitChain<kCapped>::z(a, logits[i]);
      top = fmaxf(top, logits[i]);
      if constexpr (kSum) sum += logits[i];
    }
    top *= math::kLog2E;
    if (top > softmax.max) {
      softmax.sum *= math::exp2_flushed(softmax.max - top);
      softmax.max = top;
    }
    // Everything so far was -inf: any finite base will do.
    const float base = softmax.max == -INFINITY ? 0.0f : softmax.max;
    FLA_UNROLL
    for (int i = 0; i < N; ++i) softmax.sum += math::exp2_flushed(fmaf(logits[i], math::kLog2E, -base));
  }
};

struct LossShared {
  SoftmaxState softmax[32];
  BlockSlots<1> sum;
  TransactionBarrier barrier;
};

// Log-sum-exp from base-2 statistics; ln 2 in two parts, because max may be large.
FLA_DEVICE float log_sum_exp(const SoftmaxState& s) {
  if (s.sum == 0.0f) return -INFINITY;
  return fmaf(s.max, 0.693359375f, fmaf(s.max, -2.12194440e-4f, math::log(s.sum)));
}

// Stores what a row gives: loss, z-loss, lse. By one thread.
FLA_DEVICE void store_row(const LogitArgs& a, int64_t row, float loss, float z_loss, float lse) {
  if (a.loss_rows) store_float(a.loss_rows + row * a.loss_stride, loss);
  if (a.z_loss_rows) store_float(a.z_loss_rows + row * a.z_loss_stride, z_loss);
  if (a.lse_out) store_float(a.lse_out + row * a.lse_out_stride, lse);
}

// A row whose logits are not looked at: ignored, or its label invalid.
FLA_DEVICE void store_skipped_row(const LogitArgs& a, int64_t row, LabelState state) {
  const float loss = state == LabelState::invalid ? NAN : 0.0f;
  store_row(a, row, loss, loss, 0.0f);
  if (state == LabelState::invalid && a.invalid_labels) {
    atomic_add(a.invalid_labels, 1);
    atomic_min(a.invalid_labels + 1, row);
  }
}

// The loss of a row from its statistics; z_label is 0 where the label is foreign.
FLA_DEVICE void store_loss(const LogitArgs& a, int64_t row, float lse, float z_label, float z_sum) {
  const float z_loss = a.z_loss_factor == 0.0f ? 0.0f : a.z_loss_factor * lse * lse;
  float loss = lse;
  if (a.smoothing != 1.0f) loss -= (1.0f - a.smoothing) * z_label;  // 0 * -inf is not 0
  if (a.smoothing != 0.0f) loss -= a.smoothing_per_class * z_sum;
  store_row(a, row, loss + z_loss, z_loss, lse);
}

// The factor of every gradient of a row: upstream, divisor and logit scale; and the weight of p in the bracket.
FLA_DEVICE float upstream_factor(const LogitArgs& a, int64_t row) {
  float g = a.dloss ? load_float(a.dloss + row * a.dloss_stride) : 1.0f;
  if (a.divisor) {
    const float divisor = load_float(a.divisor);
    g = divisor == 0.0f ? (a.empty_divisor_is_zero ? 0.0f : NAN) : g / divisor;
  }
  return g * a.scale;
}
FLA_DEVICE float probability_weight(const LogitArgs& a, float lse) {
  return a.z_loss_factor == 0.0f ? 1.0f : fmaf(2.0f * a.z_loss_factor, lse, 1.0f);
}

}  // namespace fla::detail
