// A row of logits as the loss kernels see it: label states, the chain from stored logit to z, and how a row of any
// alignment splits into scalars and 16-byte vectors.
#pragma once

#include "common/alignment.h"
#include "common/gpu.h"
#include "common/math.cuh"
#include "common/mutate.h"
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
  float upstream_scale = 1;           // of the upstream gradient, beside the divisor
  float* loss_rows = nullptr;
  float* z_loss_rows = nullptr;       // may be absent
  float* lse_out = nullptr;           // may be absent
  DType lse_out_dtype = DType::f32;
  int64_t loss_stride = 1, z_loss_stride = 1, lse_out_stride = 1;
  int64_t* invalid_labels = nullptr;  // may be absent
  int64_t first_row = 0;              // of these rows among those of the whole call, for invalid_labels
  float loss_scale = 1;               // -1: what is stored is the label's log-probability
  bool without_lse = false;           // a shard's loss lacks the log-sum-exp, which needs all shards
  // Entropy of the row's softmax: out, or with its upstream gradient in. Absent: nothing of it is computed.
  float* entropy_rows = nullptr;
  const float* entropy = nullptr;
  const float* dentropy = nullptr;
  int64_t entropy_stride = 1, dentropy_stride = 0;
};

enum class LabelState { ignored, invalid, local, foreign };

struct Label {
  LabelState state;
  int32_t column;  // of this shard, where the label is local; else -1
};

// Without labels every row counts and none has a label of its own.
FLA_DEVICE Label read_label(const LogitArgs& a, int64_t row) {
  if (!a.labels) return {LabelState::foreign, -1};
  const int64_t id = load_index(a.labels, row * a.label_stride);
  if (id == a.ignore_index) return {LabelState::ignored, -1};
  const bool exists = FLA_MUTATE("cross_entropy: unguarded label", id >= 0 && id < a.total_classes, true);
  if (!exists) return {LabelState::invalid, -1};
  const int64_t column = id - a.class_start;
  if (column < 0 || column >= a.columns) return {LabelState::foreign, -1};
  return {LabelState::local, static_cast<int32_t>(column)};
}

// From the stored logit to z. A plain chain has no cap and a positive scale, so that the largest logit is the largest z.
template <bool kPlain>
struct LogitChain {
  // z, or z / cap where there is a cap.
  template <int N>
  static FLA_DEVICE void to_units(const LogitArgs& a, float (&logits)[N]) {
    const bool capped = !kPlain && a.cap != 0.0f;
    const float scale = capped ? a.scale_over_cap : a.scale;
    FLA_UNROLL
    for (int i = 0; i < N; ++i) logits[i] *= scale;
    if (capped) math::tanh_each(logits);
  }
  static FLA_DEVICE float z(const LogitArgs& a, float logit) {
    float one[1] = {logit};
    to_units(a, one);
    return !kPlain && a.cap != 0.0f ? one[0] * a.cap : one[0];
  }

  // p, its logarithm and the slope dz / d(logit) without the scale, given the row's log-sum-exp.
  struct Probabilities {
    float p, exponent, slope;
  };
  // `scale` and `cap` are a.scale and a.cap, or both and lse times log2(e) with kBase2: one rounding of the exponent more, which costs
  // |x| u and saves four instructions; a 16-bit result does not show it.
  template <bool kBase2, int N>
  static FLA_DEVICE void probabilities(const LogitArgs& a, const float (&logits)[N], float scale, float cap, float lse,
                                       Probabilities (&out)[N]) {
    const bool capped = !kPlain && a.cap != 0.0f;
    float x[N];
    FLA_UNROLL
    for (int i = 0; i < N; ++i) x[i] = capped ? logits[i] * a.scale_over_cap : logits[i];
    if (capped) math::tanh_each(x);
    FLA_UNROLL
    for (int i = 0; i < N; ++i) {
      out[i].slope = capped ? fmaf(-x[i], x[i], 1.0f) : 1.0f;
      out[i].exponent = fmaf(x[i], capped ? cap : scale, -lse);
      out[i].p = kBase2 ? math::exp2(out[i].exponent) : math::exp(out[i].exponent);
    }
  }
};

// What the gradients of one row share: factor slope (weight p - smoothing / K - [label] (1 - smoothing)), with the
// upstream factor multiplied in where that saves an operation per logit. kPlain as in LogitChain, T the stored type.
template <class T, bool kPlain>
struct RowGradient {
  static constexpr bool kBase2 = sizeof(T) == 2;

  float scale, cap, lse;  // of the exponent, in base 2 or e
  float factor, weight, weight_and_factor, smoothing_and_factor, smoothing_per_class, label_term;
  int32_t label_column;
  // The gradient of the entropy, -dentropy p (log p + entropy): a weight of p that is linear in log p.
  float entropy = 0, entropy_factor = 0;

  FLA_DEVICE void add_entropy(const LogitArgs& a, int64_t row) {
    if (!a.dentropy) return;
    entropy = load_float(a.entropy + row * a.entropy_stride);
    entropy_factor = -a.scale * load_float(a.dentropy + row * a.dentropy_stride);
  }
  // `weight` of p with that of the entropy's gradient added; 0 log 0 is 0.
  FLA_DEVICE float with_entropy(float weight, float exponent) const {
    const float log_p = math::max_with_nan(exponent, -1e4f);
    return fmaf(entropy_factor, fmaf(log_p, kBase2 ? math::kLn2 : 1.0f, entropy), weight);
  }

  using Probabilities = typename LogitChain<kPlain>::Probabilities;
  template <int N>
  FLA_DEVICE void probabilities(const LogitArgs& a, const float (&logits)[N], Probabilities (&out)[N]) const {
    LogitChain<kPlain>::template probabilities<kBase2>(a, logits, scale, cap, lse, out);
  }

  // The gradients of N logits from `column` on, formed in fp32. The label's element is formed apart, its three terms
  // added before the factor, so that the others pay nothing for it.
  template <int N>
  FLA_DEVICE void apply(const LogitArgs& a, int column, float (&values)[N]) const {
    const auto label = static_cast<uint32_t>(label_column - column);
    float label_gradient = 0.0f;
    if (label < static_cast<uint32_t>(N)) {
      float logit[1] = {values[0]};
      FLA_UNROLL
      for (int e = 1; e < N; ++e) logit[0] = static_cast<uint32_t>(e) == label ? values[e] : logit[0];
      Probabilities of[1];
      probabilities(a, logit, of);
      const auto [p, exponent, slope] = of[0];
      label_gradient = factor * slope * (fmaf(weight, p, -smoothing_per_class) - label_term);
      if constexpr (!kPlain) label_gradient = fmaf(slope * p, with_entropy(0.0f, exponent), label_gradient);
    }
    Probabilities of[N];
    probabilities(a, values, of);
    FLA_UNROLL
    for (int e = 0; e < N; ++e) {
      const auto [p, exponent, slope] = of[e];
      values[e] = kPlain ? weight_and_factor * p
                         : slope * fmaf(with_entropy(weight_and_factor, exponent), p, -smoothing_and_factor);
    }
    if (label < static_cast<uint32_t>(N)) {
      FLA_UNROLL
      for (int e = 0; e < N; ++e) values[e] = static_cast<uint32_t>(e) == label ? label_gradient : values[e];
    }
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
template <bool kPlain, bool kEntropy = false>
struct LogitStatistics {
  SoftmaxState softmax;
  float sum = 0.0f;       // of z over z_unit(), for smoothing
  float weighted = 0.0f;  // sum of 2^(t - max) (t - max), for the entropy

  // What a row's `sum` is to be multiplied with: of a capped logit, only the hyperbolic tangent is formed here.
  static FLA_DEVICE float z_unit(const LogitArgs& a) { return a.cap != 0.0f ? a.cap : 1.0f; }

  // Consumes its argument. In base 2 from the first multiplication on: t = z log2(e).
  template <int N>
  FLA_DEVICE void add(const LogitArgs& a, float (&logits)[N]) {
    float to_base_2 = a.scale * math::kLog2E;
    if constexpr (!kPlain) {
      LogitChain<kPlain>::to_units(a, logits);
      to_base_2 = z_unit(a) * math::kLog2E;
      if (a.smoothing != 0.0f) {
        FLA_UNROLL
        for (int i = 0; i < N; ++i) sum += logits[i];
      }
    }
    float top = logits[0];
    FLA_UNROLL
    for (int i = 1; i < N; ++i) top = fmaxf(top, logits[i]);
    top *= to_base_2;
    if (top > softmax.max) {
      if constexpr (kEntropy) weighted = weighted_from(top);
      softmax.sum *= math::exp2(softmax.max - top);
      softmax.max = top;
    }
    // Everything so far was -inf: any finite base will do.
    const float base = softmax.max == -INFINITY ? 0.0f : softmax.max;
    // Four chains of additions, so that none waits for the one before.
    float parts[4] = {};
    float terms = 0.0f;
    FLA_UNROLL
    for (int i = 0; i < N; ++i) {
      const float below = fmaf(logits[i], to_base_2, -base), e = math::exp2(below);
      parts[i % 4] += e;
      if constexpr (kEntropy) terms = fmaf(e, math::max_with_nan(below, -1e4f), terms);  // 0 log 0 is 0
    }
    softmax.sum += (parts[0] + parts[1]) + (parts[2] + parts[3]);
    weighted += terms;
  }

  // `weighted` as it is relative to a larger maximum.
  FLA_DEVICE float weighted_from(float max) const {
    const float lower = softmax.max - max;
    return softmax.sum == 0.0f ? 0.0f : math::exp2(lower) * fmaf(lower, softmax.sum, weighted);
  }
};

struct LossShared {
  SoftmaxState softmax[32];
  BlockSlots<1> sum;
};

// Log-sum-exp from base-2 statistics; ln 2 in two parts, because max may be large.
FLA_DEVICE float log_sum_exp(const SoftmaxState& s) {
  if (s.sum == 0.0f) return -INFINITY;
  return fmaf(s.max, 0.693359375f, fmaf(s.max, -2.12194440e-4f, math::log(s.sum)));
}

// Beyond this a row's maximum times log2(e) is rounded by more than an exponent's worth: the sum relative to it says nothing.
constexpr float kFar = 0x1p24f;

// The log-sum-exp of the block's row, given its statistics. Where these are far out, the row is read again: subtraction first, in
// base e, so that the largest logit has exponent 0 and any finite one gives a finite result. All threads take part.
template <bool kPlain, class T>
FLA_DEVICE float row_log_sum_exp(const LogitArgs& a, const T* logits, const SoftmaxState& total, LossShared& shared) {
  if (total.max == -INFINITY || fabsf(total.max) < kFar) return log_sum_exp(total);
  const auto first = static_cast<int>(threadIdx.x), step = static_cast<int>(blockDim.x);
  float top = -INFINITY, sum = 0.0f;
  FLA_NO_UNROLL
  for (int column = first; column < a.columns; column += step)
    top = math::max_with_nan(top, LogitChain<kPlain>::z(a, load_float(logits + column)));
  block_barrier();  // the statistics have been taken from the slots
  top = block_merge({top, 0.0f}, shared.softmax).max;
  FLA_NO_UNROLL
  for (int column = first; column < a.columns; column += step)
    sum += math::exp(LogitChain<kPlain>::z(a, load_float(logits + column)) - top);
  sum = block_sum(sum, shared.sum);
  block_barrier();
  return top + math::log(sum);
}

// Stores what a row gives: loss, z-loss, lse. By one thread.
FLA_DEVICE void store_row(const LogitArgs& a, int64_t row, float loss, float z_loss, float lse) {
  if (a.loss_rows) store_float(a.loss_rows + row * a.loss_stride, loss);
  if (a.z_loss_rows) store_float(a.z_loss_rows + row * a.z_loss_stride, z_loss);
  if (a.lse_out) store_float(AnyFloat{a.lse_out, a.lse_out_dtype}, row * a.lse_out_stride, lse);
}

// A row whose logits are not looked at: ignored, or its label invalid.
FLA_DEVICE void store_skipped_row(const LogitArgs& a, int64_t row, LabelState state) {
  const float loss = state == LabelState::invalid ? NAN : 0.0f;
  store_row(a, row, loss, loss, 0.0f);
  if (state == LabelState::invalid && a.invalid_labels) {
    atomic_add(a.invalid_labels, 1);
    atomic_min(a.invalid_labels + 1, a.first_row + row);
  }
}

// The loss of a row from its statistics; z_label is 0 where the label is foreign.
FLA_DEVICE void store_loss(const LogitArgs& a, int64_t row, float lse, float z_label, float z_sum) {
  const float z_loss = a.z_loss_factor == 0.0f ? 0.0f : a.z_loss_factor * lse * lse;
  float loss = a.without_lse ? 0.0f : lse;
  if (a.smoothing != 1.0f) loss -= (1.0f - a.smoothing) * z_label;  // 0 * -inf is not 0
  if (a.smoothing != 0.0f) loss -= a.smoothing_per_class * z_sum;
  store_row(a, row, a.loss_scale * (loss + z_loss), z_loss, lse);
}

// The factor of every gradient of a row: upstream, divisor and logit scale.
FLA_DEVICE float upstream_factor(const LogitArgs& a, int64_t row) {
  float g = a.dloss ? load_float(a.dloss + row * a.dloss_stride) : 1.0f;
  if (a.divisor) {
    const float divisor = load_float(a.divisor);
    g = divisor == 0.0f ? (a.empty_divisor_is_zero ? 0.0f : NAN) : g * math::reciprocal(divisor);
  }
  return g * (a.upstream_scale * a.scale);
}
template <class T, bool kPlain>
FLA_DEVICE RowGradient<T, kPlain> row_gradient(const LogitArgs& a, const Label& label, float lse, float factor) {
  const float weight = a.z_loss_factor == 0.0f ? 1.0f : fmaf(2.0f * a.z_loss_factor, lse, 1.0f);
  // Far out, exponents of 16-bit logits are 0 or below -2^16 in any base, and only base e has the 0 exactly.
  const float base = RowGradient<T, kPlain>::kBase2 && fabsf(lse) < kFar ? math::kLog2E : 1.0f;
  return {a.scale * base,
          a.cap * base,
          lse * base,
          factor,
          weight,
          weight * factor,
          a.smoothing_per_class * factor,
          a.smoothing_per_class,
          1.0f - a.smoothing,
          label.column >= 0 ? label.column : INT32_MIN / 2};
}

// No cap, no smoothing, no entropy, a positive scale: the kernels' fast form.
inline bool chain_is_plain(const LogitArgs& a) {
  return a.cap == 0.0f && a.smoothing == 0.0f && a.scale > 0.0f && !a.dentropy && !a.entropy_rows;
}

}  // namespace fla::detail
