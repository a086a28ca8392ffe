// Fused learned maps, forward: every warp walks over tiles of its own rows, which it asks for several tiles ahead, into shared
// memory that no other warp touches. 4 bytes an element move in 16 bits (hedgehog 6), 2 E flops (hadamard 4) on the tensor
// cores. 16 rows a warp read all weights once: 64 KB for two layers of 128, too much, so there it takes 32.
#include "common/alignment.h"
#include "common/dispatch.h"
#include "feature_map/fused_map.cuh"
#include "feature_map/fused_map.h"

namespace fla::detail {
namespace {

constexpr int kThreads = kMapWarps * kWarp;

template <RowMap kMap, int kWidth>
struct ForwardPlan {
  static constexpr bool kWide = kWidth > 64;
  static constexpr int kTiles = kWide && kMap == RowMap::product ? 2 : 1;  // of 16 rows a warp
  static constexpr int kBlocks = kWide && kMap != RowMap::relu ? 1 : 2;    // per multiprocessor
  static constexpr int kStages = kWide && kMap != RowMap::softmax ? 2 : 4;  // tiles, all but one of them on their way
  static constexpr int kTile = 16 * kTiles * kWidth;
  static constexpr int kWeights = kMapLayers<kMap> * kWidth * kWidth;
  static constexpr size_t kBytes =
      2 * (kWeights + kMapWarps * kStages * kTile) + kMapLayers<kMap> * kWidth * sizeof(float);
};

template <class T, RowMap kMap, int kWidth>
FLA_KERNEL void FLA_BOUNDS(kThreads, (ForwardPlan<kMap, kWidth>::kBlocks)) fused_map_kernel(FLA_PARAMETERS FusedMapArgs a) {
  using Plan = ForwardPlan<kMap, kWidth>;
  constexpr int kTiles = Plan::kTiles, kRows = 16 * kTiles, kStages = Plan::kStages;
  using Rows = RowFragment<T, kWidth, kTiles>;
  const int warp = static_cast<int>(threadIdx.x / kWarp);
  T* weights = shared_memory<T>();
  T* own = weights + Plan::kWeights + warp * kStages * Plan::kTile;
  float* bias = reinterpret_cast<float*>(weights + Plan::kWeights + kMapWarps * kStages * Plan::kTile);
  wait_for_predecessor();
  const int64_t step = static_cast<int64_t>(gridDim.x) * kMapWarps * kRows;
  int64_t first = (static_cast<int64_t>(blockIdx.x) * kMapWarps + warp) * kRows;
  const auto fetch = [&](int stage, int64_t row) {
    Rows::fetch(own + stage * Plan::kTile, static_cast<const T*>(a.x), row, a.rows, a.x_stride);
    async_commit();
  };
  FLA_UNROLL
  for (int i = 0; i + 1 < kStages; ++i) fetch(i, first + i * step);
  stage_layers<T, kMap, kWidth>(a, weights, bias);
  block_barrier();
  int stage = 0;
  for (; first < a.rows; first += step) {
    async_wait<kStages - 2>();
    Rows x;
    x.load_tile(own + stage * Plan::kTile);
    fetch(stage == 0 ? kStages - 1 : stage - 1, first + (kStages - 1) * step);
    stage = stage + 1 == kStages ? 0 : stage + 1;
    RowSums<kWidth, kTiles> h, second;
    Rows y;
    T* to = static_cast<T*>(a.out.data);
    if constexpr (kMap == RowMap::softmax) {
      FLA_UNROLL
      for (int q = 0; q < kMapSlices<kWidth>; ++q) h.layer(q, x, weights, bias);
      Rows below;
      FLA_UNROLL
      for (int n = 0; n < 2 * kTiles; ++n) {
        float down[kMapSlices<kWidth>][8];
        const float factor = signed_softmax(n, h, down);
        FLA_UNROLL
        for (int q = 0; q < kMapSlices<kWidth>; ++q) {
          FLA_UNROLL
          for (int e = 0; e < 8; ++e) {
            h.at(n, q, e) *= factor;
            down[q][e] *= factor;
          }
          y.of[n][q] = h.template packed<T>(n, q);
          below.of[n][q] = pack<T, 8>(down[q]);
        }
      }
      FLA_UNROLL
      for (int q = 0; q < kMapSlices<kWidth>; ++q) y.store_rows(q, to, first, a.rows, a.out_stride);
      FLA_UNROLL
      for (int q = 0; q < kMapSlices<kWidth>; ++q) below.store_rows(q, to + kWidth, first, a.rows, a.out_stride);
    } else {
      FLA_UNROLL
      for (int q = 0; q < kMapSlices<kWidth>; ++q) {
        h.layer(q, x, weights, bias);
        if constexpr (kMap == RowMap::product) second.layer(q, x, weights + kWidth * kWidth, bias + kWidth);
        FLA_UNROLL
        for (int i = 0; i < 16 * kTiles; ++i) {
          float& v = h.at(i / 8, q, i % 8);
          v = kMap == RowMap::product ? v * second.at(i / 8, q, i % 8) : math::max_with_nan(v, 0.0f);
        }
        h.pack_into(q, y);
        y.store_rows(q, to, first, a.rows, a.out_stride);
      }
    }
  }
}

template <RowMap kMap, int kWidth>
Status launch_map(const LearnedMapForward& m, const FusedMapArgs& a, Stream stream) {
  using Plan = ForwardPlan<kMap, kWidth>;
  constexpr int64_t kResident = kMapMultiprocessors * Plan::kBlocks;
  const int64_t blocks = divide_up(a.rows, kMapWarps * 16 * Plan::kTiles);
  const Launch shape{.grid = blocks < kResident ? blocks : kResident,
                     .block = kThreads,
                     .shared_bytes = Plan::kBytes,
                     .stream = stream,
                     .dependent = true};
  return m.x.dtype == DType::bf16 ? launch<&fused_map_kernel<bf16, kMap, kWidth>>(shape, a)
                                  : launch<&fused_map_kernel<f16, kMap, kWidth>>(shape, a);
}

}  // namespace

bool fuses(const LearnedMapForward& a) {
  const int64_t width = a.x.size[1];
  return a.kind != LearnedMap::outer_product && size_of(a.x.dtype) == 2 && (width == 64 || width == 128) &&
         a.weight.size[0] == width && all_rows_allow(8, a.x, a.weight, a.weight2, a.y);
}

Status run_fused(const LearnedMapForward& m, Stream stream) {
  FusedMapArgs a;
  a.rows = m.x.size[0];
  if (a.rows == 0) return {};
  a.x = m.x.data;
  a.out = any_float(m.y);
  a.x_stride = m.x.stride[0];
  a.out_stride = m.y.stride[0];
  a.weight[0] = m.weight.data;
  a.weight[1] = m.weight2.data;
  a.weight_stride[0] = m.weight.stride[0];
  a.weight_stride[1] = m.weight2 ? m.weight2.stride[0] : 0;
  a.bias[0] = any_float(m.bias);
  a.bias[1] = any_float(m.bias2);
  return with_map(m.kind, [&](auto map) {
    constexpr RowMap kMap = decltype(map)::value;
    return m.x.size[1] == 64 ? launch_map<kMap, 64>(m, a, stream) : launch_map<kMap, 128>(m, a, stream);
  });
}

}  // namespace fla::detail
