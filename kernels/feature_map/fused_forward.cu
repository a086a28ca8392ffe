// Fused learned maps, forward: every warp walks over tiles of its own rows, which it asks for several tiles ahead, into shared
// memory that no other warp touches. 4 bytes an element move in 16 bits (hedgehog 6), 2 E flops (hadamard 4) on the tensor
// cores. A warp reads all weights for every tile, two layers' too often for 16 rows: there it takes 32.
#include "common/alignment.h"
#include "common/dispatch.h"
#include "feature_map/fused_map.cuh"
#include "feature_map/fused_map.h"

namespace fla::detail {
namespace {

template <RowMap kMap, int kWidth>
struct ForwardPlan {
  static constexpr bool kWide = kWidth > 64, kTwo = kMap == RowMap::product;  // layers
  static constexpr int kTiles = kTwo ? 2 : 1;                                  // of 16 rows a warp
  static constexpr int kWarps = kTwo && !kWide ? 4 : 8, kThreads = kWarps * kWarp;
  static constexpr int kBlocks = kWide && kMap != RowMap::relu ? 1 : 2;  // per multiprocessor
  // Tiles, all but one of them on their way.
  static constexpr int kStages = kWide && kMap != RowMap::softmax ? 2 : 4;
  static constexpr int kSpan = kMapSpan<kMap, kWidth>;
  static constexpr int kTile = 16 * kTiles * kWidth;
  static constexpr int kWeights = kMapLayers<kMap> * kWidth * kWidth;
  static constexpr size_t kBytes =
      2 * (kWeights + kWarps * kStages * kTile) + kMapLayers<kMap> * kWidth * sizeof(float);
};

template <class T, RowMap kMap, int kWidth>
FLA_KERNEL void FLA_BOUNDS((ForwardPlan<kMap, kWidth>::kThreads), (ForwardPlan<kMap, kWidth>::kBlocks))
    fused_map_kernel(FLA_PARAMETERS FusedMapArgs a) {
  using Plan = ForwardPlan<kMap, kWidth>;
  constexpr int kTiles = Plan::kTiles, kRows = 16 * kTiles, kStages = Plan::kStages, kSpan = Plan::kSpan;
  using Rows = RowFragment<T, kWidth, kTiles>;
  const int warp = static_cast<int>(threadIdx.x / kWarp);
  T* weights = shared_memory<T>();
  T* own = weights + Plan::kWeights + warp * kStages * Plan::kTile;
  float* bias = reinterpret_cast<float*>(weights + Plan::kWeights + Plan::kWarps * kStages * Plan::kTile);
  release_dependents();
  wait_for_predecessor();
  const int64_t step = static_cast<int64_t>(gridDim.x) * Plan::kWarps * kRows;
  int64_t first = (static_cast<int64_t>(warp) * gridDim.x + blockIdx.x) * kRows;  // first the first warps of all blocks
  int64_t next = first;  // of its rows, to be fetched
  const T* source = Rows::source(static_cast<const T*>(a.x), first, a.x_stride);
  const auto fetch = [&](int stage) {
    if (next < a.rows) Rows::fetch(own + stage * Plan::kTile, source, rows_left(a.rows - next, kRows), a.x_stride);
    async_commit();
    next += step;
    source += step * a.x_stride;
  };
  stage_weights<T, kMap, kWidth>(a, weights);
  FLA_UNROLL
  for (int i = 0; i + 1 < kStages; ++i) fetch(i);
  stage_biases<kMap, kWidth>(a, bias);
  async_wait<kStages - 2>();
  block_barrier();
  int stage = 0;
  for (; first < a.rows; first += step) {
    async_wait<kStages - 2>();
    warp_barrier();  // what its other lanes copied is there, and all have read what lies where the next rows go
    Rows x;
    x.load_tile(own + stage * Plan::kTile);
    fetch(stage == 0 ? kStages - 1 : stage - 1);
    stage = stage + 1 == kStages ? 0 : stage + 1;
    RowSums<kWidth, kTiles> h, second;
    Rows y;
    T* to = static_cast<T*>(a.out.data);
    if constexpr (kMap == RowMap::softmax) {
      FLA_UNROLL
      for (int k = 0; k < kWidth / 16; k += kSpan) h.layer(k, kSpan, x, weights, bias);
      Rows below;
      FLA_UNROLL
      for (int n = 0; n < 2 * kTiles; ++n) {
        float down[kWidth / 8][2];
        const float factor = signed_softmax(n, h, down);
        FLA_UNROLL
        for (int j = 0; j < kWidth / 8; ++j) {
          uint32_t &word = y.word(n, j), &word_below = below.word(n, j);
          word = pack_pair<T>(factor * h.of_row(n, j, 0), factor * h.of_row(n, j, 1));
          word_below = pack_pair<T>(factor * down[j][0], factor * down[j][1]);
        }
      }
      FLA_UNROLL
      for (int half = 0; half < kWidth / 64; ++half) y.store_rows(half, to, first, a.rows, a.out_stride);
      FLA_UNROLL
      for (int half = 0; half < kWidth / 64; ++half) below.store_rows(half, to + kWidth, first, a.rows, a.out_stride);
    } else {
      FLA_UNROLL
      for (int k = 0; k < kWidth / 16; ++k) {
        if (k % kSpan == 0) {
          h.layer(k, kSpan, x, weights, bias);
          if constexpr (kMap == RowMap::product) second.layer(k, kSpan, x, weights + kWidth * kWidth, bias + kWidth);
        }
        FLA_UNROLL
        for (int i = 0; i < 8 * kTiles; ++i) {
          float& v = h.at(i / 8, k, i / 2 % 4, i % 2);
          v = kMap == RowMap::product ? v * second.at(i / 8, k, i / 2 % 4, i % 2) : math::max_with_nan(v, 0.0f);
        }
        h.pack_into(k, y);
        if (k % 4 == 3) y.store_rows(k / 4, to, first, a.rows, a.out_stride);
      }
    }
  }
}

template <RowMap kMap, int kWidth>
Status launch_map(const LearnedMapForward& m, const FusedMapArgs& a, Stream stream) {
  using Plan = ForwardPlan<kMap, kWidth>;
  constexpr int64_t kResident = kMapMultiprocessors * Plan::kBlocks;
  const int64_t blocks = divide_up(a.rows, Plan::kWarps * 16 * Plan::kTiles);
  const Launch shape{.grid = blocks < kResident ? blocks : kResident,
                     .block = Plan::kThreads,
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
