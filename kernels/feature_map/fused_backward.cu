// Fused learned maps, backward: every warp of a block makes h of its rows again, then their dh, rounds it and makes dx; dh and
// x go to shared memory, from where each warp adds its 16 rows of every dweight, over all rows of the block, to sums that it
// keeps in registers for the whole launch. dbias is a product with ones. A block leaves one set of partial sums, which
// common/column_sum adds up. Shared memory is what limits it: reading weights and tiles takes a third of the time that the
// rows take from memory at full speed (two layers: half), which is why one read of a weight serves 32 rows where there are
// registers for that.
#include "common/alignment.h"
#include "common/column_sum.cuh"
#include "common/dispatch.h"
#include "common/workspace.h"
#include "feature_map/fused_map.cuh"
#include "feature_map/fused_map.h"

namespace fla::detail {
namespace {

constexpr int kThreads = kMapWarps * kWarp;
template <RowMap kMap>
inline constexpr int kTiles = kMap == RowMap::product ? 2 : 1;  // of 16 rows a warp
template <RowMap kMap>
inline constexpr int kRows = kMapWarps * 16 * kTiles<kMap>;  // of a block at a time
template <RowMap kMap>
inline constexpr int kBlocksPerMultiprocessor = kMap == RowMap::product ? 2 : kMap == RowMap::relu ? 4 : 3;
constexpr int64_t kMultiprocessors = 132;  // whatever the GPU has: the sums' order depends on it

template <class T, RowMap kMap>
using Rows = RowFragment<T, kTiles<kMap>>;

// dh of a warp's rows, one or two layers, rounded as the products read it; into the tiles, too.
template <class T, RowMap kMap>
FLA_DEVICE void hidden_gradients(const Rows<T, kMap>& x, const Rows<T, kMap> (&dy)[kMapParts<kMap>], const T* weights,
                                 const float* bias, T* tile, int in_tile, Rows<T, kMap> (&dh)[kMapLayers<kMap>]) {
  constexpr int kEighths = 2 * kTiles<kMap>;
  RowSums<kTiles<kMap>> h, second;  // second: the other layer, or the other half of a softmax
  if constexpr (kMap == RowMap::softmax) {
    FLA_UNROLL
    for (int q = 0; q < kMapHalves; ++q) h.layer(q, x, weights, bias);
    signed_softmax(h, second);
    FLA_UNROLL
    for (int n = 0; n < kEighths; ++n) {
      float mean = 0;  // of dy, weighted with y
      FLA_UNROLL
      for (int q = 0; q < kMapHalves; ++q) {
        float g[2][8];
        unpack(dy[0].of[n][q], g[0]);
        unpack(dy[1].of[n][q], g[1]);
        FLA_UNROLL
        for (int e = 0; e < 8; ++e) mean = fmaf(second.at(n, q, e), g[1][e], fmaf(h.at(n, q, e), g[0][e], mean));
      }
      mean = quad_sum(mean);
      FLA_UNROLL
      for (int q = 0; q < kMapHalves; ++q) {
        float g[2][8];
        unpack(dy[0].of[n][q], g[0]);
        unpack(dy[1].of[n][q], g[1]);
        FLA_UNROLL
        for (int e = 0; e < 8; ++e)
          h.at(n, q, e) = 2.0f * (h.at(n, q, e) * (g[0][e] - mean) - second.at(n, q, e) * (g[1][e] - mean));
      }
    }
    dh[0] = h.template packed<T>();
    dh[0].store_rows(tile, in_tile, kRows<kMap>, kTileStride);
  } else {
    FLA_UNROLL
    for (int q = 0; q < kMapHalves; ++q) {
      h.layer(q, x, weights, bias);
      if constexpr (kMap == RowMap::product) second.layer(q, x, weights + 2 * kMapWidth * kWeightStride, bias + kMapWidth);
      FLA_UNROLL
      for (int n = 0; n < kEighths; ++n) {
        float g[8];
        unpack(dy[0].of[n][q], g);
        FLA_UNROLL
        for (int e = 0; e < 8; ++e) {
          float& v = h.at(n, q, e);
          if constexpr (kMap == RowMap::product) {
            const float other = second.at(n, q, e);
            second.at(n, q, e) = v * g[e];
            v = other * g[e];
          } else {
            v = v > 0.0f ? g[e] : 0.0f;
          }
        }
      }
      h.pack_into(q, dh[0]);
      if constexpr (kMap == RowMap::product) second.pack_into(q, dh[1]);
      FLA_UNROLL
      for (int l = 0; l < kMapLayers<kMap>; ++l)
        dh[l].store_half(q, tile + l * kRows<kMap> * kTileStride, in_tile, kRows<kMap>, kTileStride);
    }
  }
}

// What a warp adds to: 16 rows of every dweight, and of its dbias in column 0 of the last.
template <int kLayers>
struct WeightSums {
  float dweight[kLayers][8][4] = {}, dbias[kLayers][4] = {};

  // += dh^T x over rows of a block, rounded up to 16. dh: from the warp's first output on, layers `apart`.
  template <class T>
  FLA_DEVICE void add(const T* dh, int apart, const T* x, int rows) {
    const int lane = static_cast<int>(threadIdx.x) % kWarp, matrix = lane / 8, row = lane % 8;
    const T* dh_row = dh + (matrix / 2 * 8 + row) * kTileStride + matrix % 2 * 8;
    const T* x_row = x + (matrix % 2 * 8 + row) * kTileStride + matrix / 2 * 8;
    const uint32_t ones = pack_pair<T>(1.0f, 1.0f);
    FLA_UNROLL_BY(2)
    for (int k = 0; k < rows; k += 16) {
      uint32_t of_dh[kLayers][4];
      FLA_UNROLL
      for (int l = 0; l < kLayers; ++l) {
        load_transposed(dh_row + l * apart + k * kTileStride, of_dh[l]);
        mma<T>(dbias[l], of_dh[l], ones, ones);
      }
      FLA_UNROLL
      for (int n = 0; n < 8; n += 2) {
        uint32_t of_x[4];
        load_transposed(x_row + k * kTileStride + 8 * n, of_x);
        FLA_UNROLL
        for (int l = 0; l < kLayers; ++l) {
          mma<T>(dweight[l][n], of_dh[l], of_x[0], of_x[1]);
          mma<T>(dweight[l][n + 1], of_dh[l], of_x[2], of_x[3]);
        }
      }
    }
  }

  FLA_DEVICE void store_sums(int layer, float* to, float* bias_to, int output) const {
    const int lane = static_cast<int>(threadIdx.x) % kWarp, g = lane / 4, t = lane % 4;
    FLA_UNROLL
    for (int half = 0; half < 2; ++half) {
      const int row = output + g + 8 * half;
      FLA_UNROLL
      for (int n = 0; n < 8; ++n) {
        const float pair[2] = {dweight[layer][n][2 * half], dweight[layer][n][2 * half + 1]};
        if (to) store_floats(to + row * kMapWidth + 8 * n + 2 * t, pair);
      }
      if (bias_to && t == 0) store_float(bias_to + row, dbias[layer][2 * half]);
    }
  }
};

// dx of another dtype, or unaligned: the parameters' sums must not depend on how it lies.
template <int kTiles>
FLA_DEVICE void store_elements(RowSums<kTiles>& dx, int q, const FusedMapArgs& a, int64_t first) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp, g = lane / 4, t = lane % 4;
  FLA_UNROLL
  for (int n = 0; n < 2 * kTiles; ++n) {
    const int64_t row = first + g + 8 * n;
    FLA_UNROLL
    for (int e = 0; e < 8; ++e)
      if (row < a.rows) store_float(a.out, row * a.out_stride + 32 * q + 8 * t + e, dx.at(n, q, e));
  }
}

// The rows of a warp: x and dh to the tiles, dx to memory.
template <class T, RowMap kMap>
FLA_DEVICE void work_on_rows(const FusedMapArgs& a, int64_t first, int in_tile, const T* weights, T* tiles, const float* bias) {
  constexpr int kLayers = kMapLayers<kMap>;
  Rows<T, kMap> x, dy[kMapParts<kMap>], dh[kLayers];
  x.load_rows(static_cast<const T*>(a.x), first, a.rows, a.x_stride);
  FLA_UNROLL
  for (int p = 0; p < kMapParts<kMap>; ++p)
    dy[p].load_rows(static_cast<const T*>(a.dy) + p * kMapWidth, first, a.rows, a.dy_stride);
  x.store_rows(tiles, in_tile, kRows<kMap>, kTileStride);
  hidden_gradients<T, kMap>(x, dy, weights, bias, tiles + kRows<kMap> * kTileStride, in_tile, dh);
  if (!a.out) return;
  FLA_UNROLL
  for (int q = 0; q < kMapHalves; ++q) {
    RowSums<kTiles<kMap>> dx;
    dx.template product<false>(q, dh[0], weights + kMapWidth * kWeightStride);
    if constexpr (kLayers == 2) dx.template product<true>(q, dh[1], weights + 3 * kMapWidth * kWeightStride);
    if (a.vectors) {
      Rows<T, kMap> packed;
      dx.pack_into(q, packed);
      packed.store_half(q, static_cast<T*>(a.out.data), first, a.rows, a.out_stride);
    } else {
      store_elements(dx, q, a, first);
    }
  }
}

template <class T, RowMap kMap>
FLA_KERNEL void FLA_BOUNDS(kThreads, kBlocksPerMultiprocessor<kMap>) fused_map_backward_kernel(FLA_PARAMETERS FusedMapArgs a) {
  constexpr int kLayers = kMapLayers<kMap>, kWeight = kMapWidth * kWeightStride, kTile = kRows<kMap> * kTileStride;
  T* weights = shared_memory<T>();             // of each layer itself and its transpose
  T* tiles = weights + 2 * kLayers * kWeight;  // x, and dh of each layer
  float* bias = reinterpret_cast<float*>(tiles + (1 + kLayers) * kTile);
  wait_for_predecessor();
  FLA_UNROLL
  for (int l = 0; l < kLayers; ++l) {
    const T* weight = static_cast<const T*>(a.weight[l]);
    stage_weight(weight, a.weight_stride[l], false, weights + 2 * l * kWeight);
    stage_weight(weight, a.weight_stride[l], true, weights + (2 * l + 1) * kWeight);
    stage_bias(a.bias[l], bias + l * kMapWidth);
  }
  const int warp = static_cast<int>(threadIdx.x) / kWarp, output = warp * 16, in_tile = warp * 16 * kTiles<kMap>;
  const bool sums = a.dweight[0] || a.dweight[1] || a.dbias[0] || a.dbias[1];
  WeightSums<kLayers> own;
  block_barrier();
  for (int64_t base = static_cast<int64_t>(blockIdx.x) * kRows<kMap>; base < a.rows;
       base += static_cast<int64_t>(gridDim.x) * kRows<kMap>) {
    const int live = a.rows - base < kRows<kMap> ? static_cast<int>(a.rows - base) : kRows<kMap>;
    if (in_tile < live) work_on_rows<T, kMap>(a, base + in_tile, in_tile, weights, tiles, bias);
    if (!sums) continue;
    block_barrier();
    own.add(tiles + kTile + output, kTile, tiles, live);
    block_barrier();
  }
  if (!sums) return;
  const int64_t block = blockIdx.x;
  FLA_UNROLL
  for (int l = 0; l < kLayers; ++l)
    own.store_sums(l, a.dweight[l] ? a.dweight[l] + block * kMapWidth * kMapWidth : nullptr,
                   a.dbias[l] ? a.dbias[l] + block * kMapWidth : nullptr, output);
}

// Calls body with the map as a template argument.
template <class Body>
auto with_map(LearnedMap kind, Body body) {
  switch (row_map_of(kind)) {
    case RowMap::softmax: return body(std::integral_constant<RowMap, RowMap::softmax>{});
    case RowMap::relu: return body(std::integral_constant<RowMap, RowMap::relu>{});
    default: return body(std::integral_constant<RowMap, RowMap::product>{});
  }
}

int64_t blocks_of(const LearnedMapBackward& m) {
  return with_map(m.kind, [&](auto map) {
    constexpr RowMap kMap = decltype(map)::value;
    const int64_t tiles = divide_up(m.x.size[0], kRows<kMap>);
    const int64_t resident = kMultiprocessors * kBlocksPerMultiprocessor<kMap>;
    return tiles < resident ? tiles : resident;
  });
}

struct Partials {
  float *dweight[2] = {}, *dbias[2] = {};
  size_t bytes = 0;

  explicit Partials(const LearnedMapBackward& m, void* base = nullptr) {
    WorkspaceParts parts(base);
    const int64_t blocks = blocks_of(m);
    const auto take = [&](const Tensor& wanted, int64_t columns) {
      return static_cast<float*>(parts.take(wanted ? static_cast<size_t>(blocks * columns) * sizeof(float) : 0));
    };
    dweight[0] = take(m.dweight, kMapWidth * kMapWidth);
    dweight[1] = take(m.dweight2, kMapWidth * kMapWidth);
    dbias[0] = take(m.dbias, kMapWidth);
    dbias[1] = take(m.dbias2, kMapWidth);
    bytes = parts.bytes();
  }
};

template <RowMap kMap>
Status launch_map(const LearnedMapBackward& m, const FusedMapArgs& a, Stream stream) {
  constexpr size_t kLayers = kMapLayers<kMap>;
  const Launch shape{.grid = blocks_of(m),
                     .block = kThreads,
                     .shared_bytes = 2 * (2 * kLayers * kMapWidth * kWeightStride + (1 + kLayers) * kRows<kMap> * kTileStride) +
                                     kLayers * kMapWidth * sizeof(float),
                     .stream = stream,
                     .dependent = true};
  return m.x.dtype == DType::bf16 ? launch<&fused_map_backward_kernel<bf16, kMap>>(shape, a)
                                  : launch<&fused_map_backward_kernel<f16, kMap>>(shape, a);
}

}  // namespace

bool fuses(const LearnedMapBackward& m) {
  return m.kind != LearnedMap::outer_product && size_of(m.x.dtype) == 2 && m.dy.dtype == m.x.dtype &&
         m.x.size[1] == kMapWidth && m.weight.size[0] == kMapWidth && all_rows_allow(8, m.x, m.weight, m.weight2, m.dy);
}

size_t fused_workspace_bytes(const LearnedMapBackward& m) { return Partials(m).bytes; }

Status run_fused(const LearnedMapBackward& m, Workspace workspace, Stream stream) {
  const Partials partials(m, workspace.data);
  FusedMapArgs a;
  a.rows = m.x.size[0];
  const int64_t parts = blocks_of(m);
  if (a.rows > 0) {
    a.x = m.x.data;
    a.dy = m.dy.data;
    a.out = any_float(m.dx);
    a.vectors = m.dx.dtype == m.x.dtype && rows_allow(m.dx, 8);
    a.x_stride = m.x.stride[0];
    a.dy_stride = m.dy.stride[0];
    a.out_stride = m.dx ? m.dx.stride[0] : 0;
    const Tensor* weights[2] = {&m.weight, &m.weight2};
    const Tensor* biases[2] = {&m.bias, &m.bias2};
    for (int l = 0; l < 2; ++l) {
      a.weight[l] = weights[l]->data;
      a.weight_stride[l] = *weights[l] ? weights[l]->stride[0] : 0;
      a.bias[l] = any_float(*biases[l]);
      a.dweight[l] = partials.dweight[l];
      a.dbias[l] = partials.dbias[l];
    }
    const Status s = with_map(m.kind, [&](auto map) { return launch_map<decltype(map)::value>(m, a, stream); });
    if (!s.ok()) return s;
  }
  const Status s = finish_columns(column_target(partials.dweight[0], m.dweight), column_target(partials.dweight[1], m.dweight2),
                                  parts, kMapWidth * kMapWidth, stream);
  if (!s.ok()) return s;
  return finish_columns(column_target(partials.dbias[0], m.dbias), column_target(partials.dbias[1], m.dbias2), parts,
                        kMapWidth, stream);
}

}  // namespace fla::detail
