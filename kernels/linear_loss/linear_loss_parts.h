// The workspace of a linear loss.
#pragma once

#include <algorithm>

#include "common/alignment.h"
#include "linear/parts.h"
#include "linear_loss/chunk_sums.cuh"
#include "linear_loss/linear_loss.h"
#include "loss/l2_warp.cuh"

namespace fla::detail {

// Where everything lies: the one list behind the formula of fla/linear_loss.h.
struct LinearLossParts {
  int64_t T, H, V;
  LinearLossPlan plan;
  Tensor logits, target_logits;                 // of a chunk
  Tensor dweight, dx;                           // where they are summed: the caller's, or fp32 scratch
  float *bias_sums, *bias_partials;             // per chunk; per part of a chunk
  ChunkStatistics statistics;                   // lean
  float *losses, *z_losses, *lse;               // [T]; null where the caller's serve, or nobody asks
  RowPeaks peaks;                               // [T]; likewise
  float *divisor, *scale;
  Workspace product;

  LinearLossParts(const LinearLossCall& c, LinearLossStrategy strategy, int64_t chunk, void* base = nullptr)
      : T(c.x.size[0]), H(c.x.size[1]), V(c.weight.size[0]) {
    const bool lean = strategy == LinearLossStrategy::lean;
    const int64_t extent = std::max<int64_t>(lean ? V : T, 1);
    chunk = std::min(chunk, extent);
    const int64_t chunks = divide_up(extent, chunk);
    const DType dtype = c.x.dtype;
    const auto floats = [](int64_t n) { return static_cast<size_t>(n) * sizeof(float); };
    WorkspaceParts parts(base);
    const auto take = [&](bool needed, int64_t n) {
      return needed ? static_cast<float*>(parts.take(floats(n))) : nullptr;
    };
    const int64_t rows = lean ? T : std::min(chunk, T), columns = lean ? chunk : V;
    const int64_t stride = divide_up(columns, 64) * 64;
    const auto take_logits = [&](bool needed) {
      if (!needed) return Tensor{};
      return matrix(parts.take(static_cast<size_t>(rows * stride * size_of(dtype))), dtype, rows, columns, stride);
    };
    logits = take_logits(true);
    target_logits = take_logits(static_cast<bool>(c.pass.target_x));
    const auto summed = [&](const Tensor& out, bool in_parts) {
      if (!out || out.dtype == DType::f32 || !in_parts) return out;
      return parts.take_matrix(true, DType::f32, out.size[0], out.size[1]);
    };
    dweight = summed(c.dweight, !lean && chunks > 1);
    dx = summed(c.dx, lean && chunks > 1);
    const bool dbias = static_cast<bool>(c.dbias);
    bias_sums = take(dbias, lean ? V : V * chunks);
    bias_partials = take(dbias, column_partials(rows) * columns);
    const bool merged = lean && c.makes_loss();
    statistics = {take(merged, T * chunks), take(merged, T * chunks), take(merged && c.entropy, T * chunks), chunks};
    const bool reduced = c.makes_loss() && c.options.reduction != Reduction::none;
    losses = take(reduced, T);
    z_losses = take(reduced && c.z_loss, T);
    lse = take(c.makes_loss() && c.makes_gradients() && !c.lse && !c.pass.run, T);
    peaks.max = take(c.argmax || c.has_penalty(), T);
    if (c.has_penalty()) peaks.argmax = static_cast<int32_t*>(parts.take(floats(T)));
    if (c.argmax) {
      peaks.argmax = static_cast<int32_t*>(c.argmax.data);
      peaks.argmax_stride = c.argmax.stride[0];
    }
    divisor = take(true, 1);
    scale = take(true, 4);
    ProductWorkspace products;
    products.fit(true, rows, columns);
    products.fit(static_cast<bool>(c.dx), rows, H);
    products.fit(static_cast<bool>(c.dweight), columns, H);
    product = products.take(parts);
    plan = {strategy, chunk, chunks, parts.bytes()};
  }
};

}  // namespace fla::detail
