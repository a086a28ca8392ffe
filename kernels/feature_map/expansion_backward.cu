// Expansions, backward: every element of a row gathers the gradients of its pairs, those where it is the first and those
// where it is the second. A block keeps the gradients of a tile of rows in shared memory as they came (they are read twice);
// neighbouring threads work on neighbouring rows, each on four elements, so that a partner is loaded once for four products.
#include "common/column_sum.cuh"
#include "common/dispatch.h"
#include "common/workspace.h"
#include "feature_map/expansion_backward.cuh"

namespace fla::detail {
namespace {

constexpr int kBlock = 4;                         // elements of a thread
constexpr int64_t kMultiprocessors = 132;         // with column sums, whatever the GPU has: their order depends on it
constexpr int64_t kResidentBlocks = 4 * kMultiprocessors;
constexpr size_t kTileBytes = 56 * 1024, kMostTileBytes = 200 * 1024;

// The sums of elements i0 .. i0 + 3 of one row, to where the row's dv (and dw) lie.
template <class T>
FLA_DEVICE void gather(const ExpandBackwardArgs& a, const float* words, const T* gradients, int64_t row, int i0, float* dv) {
  const ExpansionColumns& c = a.tile.columns;
  const int width = c.width, partner = c.partner ? width : 0;
  float as_first[kBlock] = {}, as_second[kBlock] = {};
  int pairs[kBlock];
  FLA_UNROLL
  for (int e = 0; e < kBlock; ++e) pairs[e] = c.pairs_of(i0 + e < width ? i0 + e : i0);
  // Pairs with elements [from, to), whichever comes first in each.
  const auto meet_any = [&](int from, int to) {
    FLA_NO_UNROLL
    for (int j = from; j < to; ++j) {
      const float v = words[j], w = words[partner + j];
      const int pairs_of_j = c.pairs_of(j);
      FLA_UNROLL
      for (int e = 0; e < kBlock; ++e) {
        const int i = i0 + e;
        if (i >= width || i == j) continue;
        const float g = load_float(gradients + (j < i ? pairs_of_j + i : pairs[e] + j));
        if (j < i) as_second[e] = fmaf(g, v, as_second[e]);
        else as_first[e] = fmaf(g, w, as_first[e]);
      }
    }
  };
  const bool whole = i0 + kBlock <= width;
  if (c.triangle && whole) {
    const T* at = gradients + c.pairs_of(0) + i0;
    FLA_UNROLL_BY(4)
    for (int j = 0; j < i0; ++j) {
      const float v = words[j];
      FLA_UNROLL
      for (int e = 0; e < kBlock; ++e) as_second[e] = fmaf(load_float(at + e), v, as_second[e]);
      at += width - j - (c.with_diagonal ? 1 : 2);
    }
    meet_any(i0, i0 + kBlock);
    FLA_UNROLL_BY(4)
    for (int j = i0 + kBlock; j < width; ++j) {
      const float w = words[partner + j];
      FLA_UNROLL
      for (int e = 0; e < kBlock; ++e) as_first[e] = fmaf(load_float(gradients + pairs[e] + j), w, as_first[e]);
    }
  } else if (c.triangle) {
    meet_any(0, width);
  }
  FLA_UNROLL
  for (int e = 0; e < kBlock; ++e) {
    const int i = i0 + e;
    if (i >= width) break;
    const float v = words[i];
    if (c.partner) {
      const float w = words[width + i];
      float g = 0;
      if (c.with_diagonal) g = load_float(gradients + pairs[e] + i);
      else if (a.ddiagonal) g = load_float(a.ddiagonal, row * a.ddiagonal_stride + i);
      const float dx = fmaf(g, w, as_first[e]), dpartner = fmaf(g, v, as_second[e]);
      dv[i] = a.sum_both ? dx + dpartner : dx;
      dv[width + i] = dpartner;
    } else {
      float dt = as_first[e] + as_second[e];
      if (c.linear) dt += load_float(gradients + c.linear_begin() + i);
      if (c.squares) dt = fmaf(2.0f * kRootHalf * v, load_float(gradients + c.squares_begin() + i), dt);
      dv[i] = dt * a.tile.scale;
    }
  }
}

// dx of the rows of a tile from dv: through the affine and the norm, where there are any.
FLA_DEVICE void finish_rows(const ExpandBackwardArgs& a, int64_t first_row, int rows, const float* staged, const float* rstd,
                            const float* dv) {
  const ExpansionTile& t = a.tile;
  const int width = t.columns.width, thread = static_cast<int>(threadIdx.x), dv_words = width * (t.columns.partner ? 2 : 1);
  const int lane = thread % t.lanes, group = thread / t.lanes, groups = kExpansionThreads / t.lanes;
  for (int base = 0; base < rows; base += groups) {
    const bool own = base + group < rows;
    const int row = own ? base + group : 0;
    const float* d = dv + row * dv_words;
    const float* xhat = staged + row * t.row_words;
    float sums[2] = {};
    if (t.normalize) {
      for (int i = lane; i < width; i += t.lanes) {
        const float h = t.gamma ? d[i] * load_float(t.gamma, i) : d[i];
        sums[0] += h;
        sums[1] = fmaf(h, xhat[width + i], sums[1]);
      }
      warp_sum(sums, t.lanes);
    }
    if (!own) continue;
    const float share = 1.0f / static_cast<float>(width), mean = sums[0] * share, slope = sums[1] * share;
    const float factor = t.normalize ? rstd[row] : 1.0f;
    for (int i = lane; i < width; i += t.lanes) {
      const float h = t.gamma ? d[i] * load_float(t.gamma, i) : d[i];
      const float dx = t.normalize ? (h - mean - xhat[width + i] * slope) * factor : h;
      if (a.dx) store_float(a.dx, (first_row + row) * a.dx_stride + i, dx);
      if (a.dpartner) store_float(a.dpartner, (first_row + row) * a.dpartner_stride + i, d[width + i]);
    }
  }
}

template <class T>
FLA_KERNEL void FLA_BOUNDS(kExpansionThreads, 3) expand_backward_kernel(FLA_PARAMETERS ExpandBackwardArgs a) {
  release_dependents();
  wait_for_predecessor();
  const ExpansionTile& t = a.tile;
  float* staged = shared_memory<float>();
  float *rstd = staged + t.tile_rows * t.row_words, *dv = staged + a.dv_at, *sums = staged + a.sums_at;
  const int thread = static_cast<int>(threadIdx.x), width = t.columns.width;
  const int dv_words = width * (t.columns.partner ? 2 : 1), blocks = (width + kBlock - 1) / kBlock;
  if (a.dgamma || a.dbeta)
    for (int i = thread; i < 2 * width; i += kExpansionThreads) sums[i] = 0;
  for (int64_t tile = blockIdx.x; tile < a.tiles; tile += gridDim.x) {
    const int64_t first_row = tile * t.tile_rows, left = t.rows - first_row;
    const int rows = left < t.tile_rows ? static_cast<int>(left) : t.tile_rows;
    const T* gradients = stage_gradients(a, first_row, rows, reinterpret_cast<T*>(staged + a.gradients_at),
                                         thread, kExpansionThreads);
    stage_rows<true>(t, first_row, staged, rstd);
    async_wait<0>();
    block_barrier();
    for (int item = thread; item < rows * blocks; item += kExpansionThreads) {
      const int block = item / rows, row = item - block * rows;
      gather(a, staged + row * t.row_words, gradients + row * (a.staged ? a.columns : a.dout_stride), first_row + row,
             block * kBlock, dv + row * dv_words);
    }
    block_barrier();
    finish_rows(a, first_row, rows, staged, rstd, dv);
    if (a.dgamma || a.dbeta) {
      for (int i = thread; i < width; i += kExpansionThreads) {
        for (int row = 0; row < rows; ++row) {
          const float d = dv[row * dv_words + i];
          sums[i] = fmaf(d, staged[row * t.row_words + width + i], sums[i]);
          sums[width + i] += d;
        }
      }
    }
    block_barrier();
  }
  for (int i = thread; i < width; i += kExpansionThreads) {
    if (a.dgamma) store_float(a.dgamma + static_cast<int64_t>(blockIdx.x) * width + i, sums[i]);
    if (a.dbeta) store_float(a.dbeta + static_cast<int64_t>(blockIdx.x) * width + i, sums[width + i]);
  }
}

bool is_narrow(const ExpansionBackward& e) { return is_narrow(e.columns, e.x, e.dout); }

struct Plan {
  int tile_rows = 1;
  bool staged = false;
  int dv_at = 0, sums_at = 0, gradients_at = 0;  // words
  size_t shared_bytes = 0;
  int64_t tiles = 0, blocks = 0;

  Plan(const ExpansionBackward& e, const ExpansionTile& t) {
    const int64_t width = e.columns.width, columns = e.dout.size[1];
    const int64_t words = t.row_words + 1 + width * (e.columns.partner ? 2 : 1);
    const auto bytes_of = [&](int64_t rows, bool with_gradients) {
      return static_cast<size_t>((words * rows + 2 * width + 8) * 4 + (with_gradients ? rows * columns * size_of(e.dout.dtype) : 0));
    };
    staged = bytes_of(1, true) <= kMostTileBytes;
    constexpr int64_t kMostRows = 64;
    while (tile_rows < kMostRows && bytes_of(2 * tile_rows, staged) <= kTileBytes) tile_rows *= 2;
    dv_at = static_cast<int>(tile_rows * (t.row_words + 1));
    sums_at = static_cast<int>(words * tile_rows);
    gradients_at = static_cast<int>((sums_at + 2 * width + 3) / 4 * 4);
    shared_bytes = bytes_of(tile_rows, staged);
    if (is_narrow(e)) {
      tile_rows = kNarrowRows;
      staged = true;
    }
    tiles = divide_up(t.rows, tile_rows);
    const bool sums = e.dgamma || e.dbeta;
    blocks = is_narrow(e) ? (e.columns.linear ? narrow_blocks<false>(t.rows) : narrow_blocks<true>(t.rows))
             : sums && tiles > kResidentBlocks ? kResidentBlocks : tiles;
  }
};

}  // namespace

size_t workspace_bytes(const ExpansionBackward& e) {
  if (!e.dgamma && !e.dbeta) return 0;
  const Plan p(e, expansion_tile(e.columns, e.row, e.x, e.partner));
  return align_workspace(static_cast<size_t>(2 * p.blocks * e.columns.width) * sizeof(float));
}

Status run(const ExpansionBackward& e, Workspace workspace, Stream stream) {
  ExpandBackwardArgs a;
  a.tile = expansion_tile(e.columns, e.row, e.x, e.partner);
  const Plan p(e, a.tile);
  const int64_t width = e.columns.width;
  auto* partials = static_cast<float*>(workspace.data);
  if (e.dgamma) a.dgamma = partials;
  if (e.dbeta) a.dbeta = partials + p.blocks * width;
  if (a.tile.rows > 0) {
    a.tile.tile_rows = p.tile_rows;
    a.columns = static_cast<int32_t>(e.dout.size[1]);
    a.dout = any_float(e.dout);
    a.ddiagonal = any_float(e.ddiagonal);
    a.dx = any_float(e.dx);
    a.dpartner = any_float(e.dpartner);
    a.dout_stride = row_stride(e.dout);
    a.ddiagonal_stride = row_stride(e.ddiagonal);
    a.dx_stride = row_stride(e.dx);
    a.dpartner_stride = row_stride(e.dpartner);
    a.tiles = p.tiles;
    a.sum_both = e.sum_both;
    a.staged = p.staged;
    const int64_t tile_bytes = p.tile_rows * e.dout.size[1] * size_of(e.dout.dtype);
    a.vectors = (a.tile.rows == 1 || a.dout_stride == a.columns) && tile_bytes % 16 == 0 &&
                reinterpret_cast<uintptr_t>(e.dout.data) % 16 == 0;
    a.dv_at = p.dv_at;
    a.sums_at = p.sums_at;
    a.gradients_at = p.gradients_at;
    const Launch shape{.grid = p.blocks,
                       .block = kExpansionThreads,
                       .shared_bytes = p.shared_bytes,
                       .stream = stream,
                       .dependent = true};
    a.dx_vectors = e.dx && e.dx.dtype == e.x.dtype && rows_allow(e.dx, 8);
    const Status s = is_narrow(e) ? run_narrow(a, e.x.dtype, stream) : dispatch_float(e.dout.dtype, [&](auto tag) {
      return launch<&expand_backward_kernel<typename decltype(tag)::type>>(shape, a);
    });
    if (!s.ok()) return s;
  }
  if (!e.dgamma && !e.dbeta) return {};
  return finish_columns({{column_target(a.dgamma, e.dgamma), column_target(a.dbeta, e.dbeta)}},
                        a.tile.rows > 0 ? p.blocks : 0, stream);
}

}  // namespace fla::detail
