// Rows on their way into an expansion: a tile of them in shared memory as fp32, normalised and scaled. Both directions.
#pragma once

#include "common/alignment.h"
#include "common/launch.h"
#include "common/math.cuh"
#include "common/ptx.cuh"
#include "common/row_reduce.cuh"
#include "feature_map/expansion.h"

namespace fla::detail {

inline constexpr int kExpansionThreads = 256;
inline constexpr float kRootHalf = 0.70710678118654752f;

// A row is 2D + 1 words: t (or v), its companion (w forward and backward; t / sqrt(2) forward; xhat backward), and a one. With
// 16 unused ones behind them, a warp's pairs, which lie in several rows, meet in 1.0 to 1.5 words of a bank.
constexpr int expansion_row_words(int width) { return 2 * width + 17; }

struct ExpansionTile {
  AnyFloat x, partner, gamma, beta;
  int64_t x_stride = 0, partner_stride = 0, rows = 0;
  ExpansionColumns columns;
  float eps = 0, scale = 1;
  bool normalize = false, aligned = false;  // aligned: rows of x and partner are whole, aligned vectors of 8
  bool prepares = false;                    // v is not x as it lies
  int32_t tile_rows = 1, row_words = 1;
  int32_t lanes = 32;                       // of a warp that share a row
};

ExpansionTile expansion_tile(const ExpansionColumns&, const ExpansionRow&, const Tensor& x, const Tensor& partner);

template <int V>
FLA_DEVICE void stage_operand(const ExpansionTile& a, const AnyFloat& from, int64_t stride, int64_t first_row, int at,
                              float* staged) {
  const int width = a.columns.width, vectors = width / V;
  for (int i = static_cast<int>(threadIdx.x); i < a.tile_rows * vectors; i += static_cast<int>(blockDim.x)) {
    const int row = i / vectors, column = (i - row * vectors) * V;
    float values[V] = {};
    if (first_row + row < a.rows) load_floats(from, (first_row + row) * stride + column, values);
    FLA_UNROLL
    for (int e = 0; e < V; ++e) staged[row * a.row_words + at + column + e] = values[e];
  }
}

// Ends with a barrier. kBackward: keeps xhat beside t, and 1 / sigma in rstd[row].
template <bool kBackward>
FLA_DEVICE void stage_rows(const ExpansionTile& a, int64_t first_row, float* staged, float* rstd) {
  const int width = a.columns.width, thread = static_cast<int>(threadIdx.x), threads = static_cast<int>(blockDim.x);
  const auto stage = [&](const AnyFloat& from, int64_t stride, int at) {
    if (a.aligned) stage_operand<8>(a, from, stride, first_row, at, staged);
    else stage_operand<1>(a, from, stride, first_row, at, staged);
  };
  stage(a.x, a.x_stride, 0);
  if (a.columns.partner) stage(a.partner, a.partner_stride, width);
  if constexpr (!kBackward)
    for (int row = thread; row < a.tile_rows; row += threads)
      staged[row * a.row_words + 2 * width] = 1.0f;
  block_barrier();
  if (!a.prepares) return;
  const int lane = thread % a.lanes, group = thread / a.lanes, groups = threads / a.lanes;
  for (int base = 0; base < a.tile_rows; base += groups) {
    // Lanes beyond the last row take part in the shuffles alone.
    const bool own = base + group < a.tile_rows;
    const int end = own ? width : 0;
    float* v = staged + (own ? base + group : 0) * a.row_words;
    float mean = 0, factor = 1;
    if (a.normalize) {
      const float share = 1.0f / static_cast<float>(width);
      for (int i = lane; i < end; i += a.lanes) mean += v[i];
      mean = warp_sum(mean, a.lanes) * share;
      float squares = 0;
      for (int i = lane; i < end; i += a.lanes) {
        const float d = v[i] - mean;
        squares += d * d;
      }
      factor = math::rsqrt(warp_sum(squares, a.lanes) * share + a.eps);
    }
    for (int i = lane; i < end; i += a.lanes) {
      const float xhat = (v[i] - mean) * factor;
      const float weighted = a.gamma ? xhat * load_float(a.gamma, i) : xhat;
      const float t = (a.beta ? weighted + load_float(a.beta, i) : weighted) * a.scale;
      v[i] = t;
      v[width + i] = kBackward ? xhat : t * kRootHalf;
    }
    if (kBackward && own && lane == 0) rstd[base + group] = factor;
  }
  block_barrier();
}

}  // namespace fla::detail
