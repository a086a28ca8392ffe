// Fused learned maps, backward: a block takes 64 rows (128 for two layers) at a time. Every warp makes h of 16 of them again,
// then their dh, rounds it and makes dx; dh and x go to shared memory, from where each warp adds its 16 rows of a dweight,
// over all rows of the block, to sums that it keeps in registers for the whole launch. dbias is a product with ones. A block
// leaves one set of partial sums, which common/column_sum adds up.
#include "common/alignment.h"
#include "common/column_sum.cuh"
#include "common/dispatch.h"
#include "common/workspace.h"
#include "feature_map/fused_map.cuh"
#include "feature_map/fused_map.h"

namespace fla::detail {
namespace {

template <RowMap kMap>
inline constexpr int kWarps = kMapWarps * kMapLayers<kMap>;
template <RowMap kMap>
inline constexpr int kBlocksPerMultiprocessor = kMap == RowMap::relu ? 4 : kMap == RowMap::softmax ? 3 : 2;
constexpr int64_t kMultiprocessors = 132;  // whatever the GPU has: the sums' order depends on it

// dh of 16 rows, one or two layers, into rows of the tiles, rounded as the products read it.
template <class T, RowMap kMap>
FLA_DEVICE void hidden_gradients(const RowFragment<T>& x, const RowFragment<T> (&dy)[kMapParts<kMap>], const T* weights,
                                 const float* bias, T* tile, int row, int tile_rows) {
  RowSums h, second;  // second: the other layer, or the other half of a softmax
  if constexpr (kMap == RowMap::softmax) {
    FLA_UNROLL
    for (int q = 0; q < kMapHalves; ++q) h.layer(q, x, weights, bias);
    float factor[2];
    signed_softmax(h, second, factor);
    FLA_UNROLL
    for (int half = 0; half < 2; ++half) {
      float mean = 0;
      FLA_UNROLL
      for (int q = 0; q < kMapHalves; ++q) {
        float g[2][8];
        unpack(dy[0].of[half][q], g[0]);
        unpack(dy[1].of[half][q], g[1]);
        FLA_UNROLL
        for (int e = 0; e < 8; ++e) {
          h.at(half, q, e) *= factor[half];
          second.at(half, q, e) *= factor[half];
          mean = fmaf(h.at(half, q, e), g[0][e], mean);
          mean = fmaf(second.at(half, q, e), g[1][e], mean);
        }
      }
      mean = quad_sum(mean);
      FLA_UNROLL
      for (int q = 0; q < kMapHalves; ++q) {
        float g[2][8];
        unpack(dy[0].of[half][q], g[0]);
        unpack(dy[1].of[half][q], g[1]);
        FLA_UNROLL
        for (int e = 0; e < 8; ++e)
          h.at(half, q, e) = 2.0f * (h.at(half, q, e) * (g[0][e] - mean) - second.at(half, q, e) * (g[1][e] - mean));
      }
    }
  }
  // Registers are dear: the upstream waits where dh comes to lie, and is read, as x is, by the lane that wrote it.
  if constexpr (kMap != RowMap::softmax) dy[0].store_rows(tile, row, tile_rows, kTileStride);
  FLA_UNROLL
  for (int q = 0; q < kMapHalves; ++q) {
    if constexpr (kMap != RowMap::softmax) {
      RowFragment<T> x_again, dy_again;
      x_again.load_rows(tile - tile_rows * kTileStride, row, tile_rows, kTileStride);
      h.layer(q, x_again, weights, bias);
      if constexpr (kMap == RowMap::product) second.layer(q, x_again, weights + 2 * kMapWidth * kWeightStride, bias + kMapWidth);
      dy_again.load_rows(tile, row, tile_rows, kTileStride);
      FLA_UNROLL
      for (int half = 0; half < 2; ++half) {
        float g[8];
        unpack(dy_again.of[half][q], g);
        FLA_UNROLL
        for (int e = 0; e < 8; ++e) {
          float& v = h.at(half, q, e);
          if constexpr (kMap == RowMap::product) {
            const float other = second.at(half, q, e);
            second.at(half, q, e) = v * g[e];
            v = other * g[e];
          } else {
            v = v > 0.0f ? g[e] : 0.0f;
          }
        }
      }
    }
    h.store_rows(q, tile, row, tile_rows, kTileStride);
    if constexpr (kMap == RowMap::product) second.store_rows(q, tile + tile_rows * kTileStride, row, tile_rows, kTileStride);
  }
}

// What a warp adds to: 16 rows of a dweight, and of its dbias in column 0 of the last.
struct WeightSums {
  float dweight[8][4] = {}, dbias[4] = {};

  // += dh^T x over rows of a block, rounded up to 16. dh: from the warp's first output on.
  template <class T>
  FLA_DEVICE void add(const T* dh, const T* x, int rows) {
    const int lane = static_cast<int>(threadIdx.x) % kWarp, matrix = lane / 8, row = lane % 8;
    const T* dh_row = dh + (matrix / 2 * 8 + row) * kTileStride + matrix % 2 * 8;
    const T* x_row = x + (matrix % 2 * 8 + row) * kTileStride + matrix / 2 * 8;
    const uint32_t ones = pack_pair<T>(1.0f, 1.0f);
    FLA_UNROLL_BY(2)
    for (int k = 0; k < rows; k += 16) {
      uint32_t of_dh[4];
      load_transposed(dh_row + k * kTileStride, of_dh);
      FLA_UNROLL
      for (int n = 0; n < 8; n += 2) {
        uint32_t of_x[4];
        load_transposed(x_row + k * kTileStride + 8 * n, of_x);
        mma<T>(dweight[n], of_dh, of_x[0], of_x[1]);
        mma<T>(dweight[n + 1], of_dh, of_x[2], of_x[3]);
      }
      mma<T>(dbias, of_dh, ones, ones);
    }
  }

  FLA_DEVICE void store_sums(float* to, float* bias_to, int output) const {
    const int lane = static_cast<int>(threadIdx.x) % kWarp, g = lane / 4, t = lane % 4;
    FLA_UNROLL
    for (int half = 0; half < 2; ++half) {
      const int row = output + g + 8 * half;
      FLA_UNROLL
      for (int n = 0; n < 8; ++n) {
        const float pair[2] = {dweight[n][2 * half], dweight[n][2 * half + 1]};
        if (to) store_floats(to + row * kMapWidth + 8 * n + 2 * t, pair);
      }
      if (bias_to && t == 0) store_float(bias_to + row, dbias[2 * half]);
    }
  }
};

// The sums of another parameter's rows must not depend on how dx lies.
FLA_DEVICE void store_elements(RowSums& dx, int q, const FusedMapArgs& a, int64_t first) {
  const int lane = static_cast<int>(threadIdx.x) % kWarp, g = lane / 4, t = lane % 4;
  FLA_UNROLL
  for (int half = 0; half < 2; ++half) {
    const int64_t row = first + g + 8 * half;
    FLA_UNROLL
    for (int e = 0; e < 8; ++e)
      if (row < a.rows) store_float(a.out, row * a.out_stride + 32 * q + 8 * t + e, dx.at(half, q, e));
  }
}

// The 16 rows of a warp: x and dh to the tiles, dx to memory.
template <class T, RowMap kMap>
FLA_DEVICE void work_on_rows(const FusedMapArgs& a, int64_t first, int warp, const T* weights, T* tiles, const float* bias) {
  constexpr int kLayers = kMapLayers<kMap>, kRows = kWarps<kMap> * kWarpRows, kWeight = kMapWidth * kWeightStride;
  RowFragment<T> x, dy[kMapParts<kMap>];
  x.load_rows(static_cast<const T*>(a.x), first, a.rows, a.x_stride);
  FLA_UNROLL
  for (int p = 0; p < kMapParts<kMap>; ++p)
    dy[p].load_rows(static_cast<const T*>(a.dy) + p * kMapWidth, first, a.rows, a.dy_stride);
  x.store_rows(tiles, warp * kWarpRows, kRows, kTileStride);
  hidden_gradients<T, kMap>(x, dy, weights, bias, tiles + kRows * kTileStride, warp * kWarpRows, kRows);
  warp_barrier();
  if (a.out) {
    FLA_UNROLL
    for (int q = 0; q < kMapHalves; ++q) {
      RowSums dx;
      FLA_UNROLL
      for (int l = 0; l < kLayers; ++l) {
        RowFragment<T> dh;
        dh.load_rows(tiles + (1 + l) * kRows * kTileStride, warp * kWarpRows, kRows, kTileStride);
        if (l == 0) dx.template product<false>(q, dh, weights + kWeight);
        else dx.template product<true>(q, dh, weights + (2 * l + 1) * kWeight);
      }
      if (a.vectors) dx.store_rows(q, static_cast<T*>(a.out.data), first, a.rows, a.out_stride);
      else store_elements(dx, q, a, first);
    }
  }
}

template <class T, RowMap kMap>
FLA_KERNEL void FLA_BOUNDS(kWarps<kMap>* kWarp, kBlocksPerMultiprocessor<kMap>)
    fused_map_backward_kernel(FLA_PARAMETERS FusedMapArgs a) {
  constexpr int kLayers = kMapLayers<kMap>, kRows = kWarps<kMap> * kWarpRows, kWeight = kMapWidth * kWeightStride;
  T* weights = shared_memory<T>();             // of each layer itself and its transpose
  T* tiles = weights + 2 * kLayers * kWeight;  // x, and dh of each layer
  float* bias = reinterpret_cast<float*>(tiles + (1 + kLayers) * kRows * kTileStride);
  wait_for_predecessor();
  FLA_UNROLL
  for (int l = 0; l < kLayers; ++l) {
    const T* weight = static_cast<const T*>(a.weight[l]);
    stage_weight(weight, a.weight_stride[l], false, weights + 2 * l * kWeight);
    stage_weight(weight, a.weight_stride[l], true, weights + (2 * l + 1) * kWeight);
    stage_bias(a.bias[l], bias + l * kMapWidth);
  }
  const int warp = static_cast<int>(threadIdx.x) / kWarp, layer = warp / kMapWarps, output = warp % kMapWarps * 16;
  const bool sums = a.dweight[0] || a.dweight[1] || a.dbias[0] || a.dbias[1];
  WeightSums own;
  block_barrier();
  for (int64_t base = static_cast<int64_t>(blockIdx.x) * kRows; base < a.rows;
       base += static_cast<int64_t>(gridDim.x) * kRows) {
    const int64_t first = base + warp * kWarpRows;
    const int live = a.rows - base < kRows ? static_cast<int>(a.rows - base) : kRows;
    if (warp * kWarpRows < live) work_on_rows<T, kMap>(a, first, warp, weights, tiles, bias);
    if (!sums) continue;
    block_barrier();
    own.add(tiles + (1 + layer) * kRows * kTileStride + output, tiles, live);
    block_barrier();
  }
  if (!sums) return;
  const int64_t block = blockIdx.x;
  FLA_UNROLL
  for (int l = 0; l < kLayers; ++l) {
    if (l != layer) continue;
    own.store_sums(a.dweight[l] ? a.dweight[l] + block * kMapWidth * kMapWidth : nullptr,
                   a.dbias[l] ? a.dbias[l] + block * kMapWidth : nullptr, output);
  }
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
    const int64_t tiles = divide_up(m.x.size[0], kWarps<kMap> * kWarpRows);
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
  constexpr size_t kLayers = kMapLayers<kMap>, kRows = kWarps<kMap> * kWarpRows;
  const Launch shape{.grid = blocks_of(m),
                     .block = kWarps<kMap> * kWarp,
                     .shared_bytes = 2 * (2 * kLayers * kMapWidth * kWeightStride + (1 + kLayers) * kRows * kTileStride) +
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
