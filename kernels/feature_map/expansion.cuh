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

// A row is 2D + 1 words: t (or v), its companion (w forward and backward; t / sqrt(2) forward; xhat backward), and a one.
// Neighbouring threads read words that are 8 apart: a gap after every 8 puts these into different banks.
FLA_HOST_DEVICE int word_at(int word) { return word + (word >> 3); }

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
  for (int i = static_cast<int>(threadIdx.x); i < a.tile_rows * vectors; i += kExpansionThreads) {
    const int row = i / vectors, column = (i - row * vectors) * V;
    float values[V] = {};
    if (first_row + row < a.rows) load_floats(from, (first_row + row) * stride + column, values);
    FLA_UNROLL
    for (int e = 0; e < V; ++e) staged[row * a.row_words + word_at(at + column + e)] = values[e];
  }
}

// Ends with a barrier. kBackward: keeps xhat beside t, and 1 / sigma in rstd[row].
template <bool kBackward>
FLA_DEVICE void stage_rows(const ExpansionTile& a, int64_t first_row, float* staged, float* rstd) {
  const int width = a.columns.width, thread = static_cast<int>(threadIdx.x);
  const auto stage = [&](const AnyFloat& from, int64_t stride, int at) {
    if (a.aligned) stage_operand<8>(a, from, stride, first_row, at, staged);
    else stage_operand<1>(a, from, stride, first_row, at, staged);
  };
  stage(a.x, a.x_stride, 0);
  if (a.columns.partner) stage(a.partner, a.partner_stride, width);
  if constexpr (!kBackward)
    for (int row = thread; row < a.tile_rows; row += kExpansionThreads)
      staged[row * a.row_words + word_at(2 * width)] = 1.0f;
  block_barrier();
  if (!a.prepares) return;
  const int lane = thread % a.lanes, group = thread / a.lanes, groups = kExpansionThreads / a.lanes;
  for (int base = 0; base < a.tile_rows; base += groups) {
    const bool own = base + group < a.tile_rows;
    float* v = staged + (own ? base + group : 0) * a.row_words;
    float mean = 0, factor = 1;
    if (a.normalize) {
      const float share = 1.0f / static_cast<float>(width);
      for (int i = lane; i < width; i += a.lanes) mean += v[word_at(i)];
      mean = warp_sum(mean, a.lanes) * share;
      float squares = 0;
      for (int i = lane; i < width; i += a.lanes) {
        const float d = v[word_at(i)] - mean;
        squares += d * d;
      }
      factor = math::rsqrt(warp_sum(squares, a.lanes) * share + a.eps);
    }
    if (!own) continue;
    for (int i = lane; i < width; i += a.lanes) {
      const float xhat = (v[word_at(i)] - mean) * factor;
      const float weighted = a.gamma ? xhat * load_float(a.gamma, i) : xhat;
      const float t = (a.beta ? weighted + load_float(a.beta, i) : weighted) * a.scale;
      v[word_at(i)] = t;
      v[word_at(width + i)] = kBackward ? xhat : t * kRootHalf;
    }
    if (kBackward && lane == 0) rstd[base + group] = factor;
  }
  block_barrier();
}

}  // namespace fla::detail
