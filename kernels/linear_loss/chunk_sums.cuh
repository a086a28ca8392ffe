// For linear_loss.cu: what a linear loss does beside products and passes over logits: a thread a row, or a class.
#pragma once

#include "common/launch.h"
#include "loss/cross_entropy.cuh"

namespace fla::detail {

// Statistics of n chunks of classes, [n][T] each; entropy only where it is asked for.
struct ChunkStatistics {
  float *lse = nullptr, *loss = nullptr, *entropy = nullptr;
  int64_t chunks = 0;
};

namespace {

constexpr int kLinearLossThreads = 256;

// out: the factor of all gradients, 0, 1, and the factor of the penalty in front of it.
FLA_KERNEL void FLA_BOUNDS(32, 1) scale_kernel(float* out, const float* dloss, const float* divisor, float penalty) {
  if (threadIdx.x != 0) return;
  const float g = dloss ? load_float(dloss) : 1.0f;
  float d = divisor ? load_float(divisor) : 1.0f;
  if (d == 0.0f) d = 1.0f;  // no token counts: every gradient of theirs is 0 whatever its factor
  store_float(out, g / d);
  store_float(out + 1, 0.0f);
  store_float(out + 2, 1.0f);
  store_float(out + 3, penalty * d);
}

// Statistics of chunks into those of the rows.
FLA_KERNEL void FLA_BOUNDS(kLinearLossThreads, 4)
    combine_kernel(FLA_PARAMETERS LogitArgs a, FLA_PARAMETERS ChunkStatistics parts) {
  const int64_t row = static_cast<int64_t>(blockIdx.x) * kLinearLossThreads + threadIdx.x;
  if (row >= a.rows) return;
  const LabelState state = read_label(a, row).state;
  if (state == LabelState::ignored || state == LabelState::invalid) {
    const float loss = state == LabelState::invalid ? NAN : 0.0f;
    store_row(a, row, loss, loss, 0.0f);
    if (a.entropy_rows) store_float(a.entropy_rows + row * a.entropy_stride, loss);
    return;
  }
  float top = -INFINITY;
  for (int64_t i = 0; i < parts.chunks; ++i) {
    const float lse = load_float(parts.lse + i * a.rows + row);
    top = lse > top || lse != lse ? lse : top;
  }
  float sum = 0.0f, loss = 0.0f, spread = 0.0f;
  for (int64_t i = 0; i < parts.chunks; ++i) {
    const float lse = load_float(parts.lse + i * a.rows + row);
    loss += load_float(parts.loss + i * a.rows + row);
    if (lse == -INFINITY) continue;
    const float below = lse - top, share = math::exp(below);
    sum += share;
    if (parts.entropy) spread = fmaf(share, load_float(parts.entropy + i * a.rows + row) - below, spread);
  }
  const float lse = sum == 0.0f ? -INFINITY : top + math::log(sum);
  const float z_loss = a.z_loss_factor == 0.0f ? 0.0f : a.z_loss_factor * lse * lse;
  store_row(a, row, a.loss_scale * ((a.without_lse ? 0.0f : lse) + loss + z_loss), z_loss, lse);
  if (a.entropy_rows) store_float(a.entropy_rows + row * a.entropy_stride, math::log(sum) + spread / sum);
}

// dbias from one row of column sums per chunk.
FLA_KERNEL void FLA_BOUNDS(kLinearLossThreads, 4)
    finish_bias_kernel(AnyFloat out, const float* chunk_sums, const float* alpha, int64_t chunks, int64_t classes,
                       bool accumulate) {
  const int64_t v = static_cast<int64_t>(blockIdx.x) * kLinearLossThreads + threadIdx.x;
  if (v >= classes) return;
  float sum = 0.0f;
  for (int64_t i = 0; i < chunks; ++i) sum += load_float(chunk_sums + i * classes + v);
  sum *= load_float(alpha);
  store_float(out, v, accumulate ? load_float(out, v) + sum : sum);
}

}  // namespace
}  // namespace fla::detail
