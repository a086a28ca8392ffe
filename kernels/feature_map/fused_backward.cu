// Fused learned maps, backward. The rows of a block come to shared memory, those of the next turn while it works on these.
// Every warp makes h of its own rows again, then their dh, rounds it and makes dx; dh takes the place of dy, from where each
// warp adds its part of every dweight, over all rows of the block, to sums that it keeps in registers for the whole launch.
// dbias is a product with ones. A block leaves one set of partial sums, which common/column_sum adds up: blocks are large and
// few because of those. At D = 64 a warp takes 32 rows, and one read of a weight serves them all: with 16 rows shared memory
// is what limits it. No pipe is full (on an H200 70 % of a copy with one layer, 50 % with two, whose 200 products of
// 16 x 8 x 16 in 16 rows are half of what mma can do): eight warps a multiprocessor, all that fit, wait for each other's
// phases. At D = 128 sums fill half of the registers, and dh of two layers is read back from its tile.
#include "common/alignment.h"
#include "common/column_sum.cuh"
#include "common/dispatch.h"
#include "common/workspace.h"
#include "feature_map/fused_map.cuh"
#include "feature_map/fused_map.h"

namespace fla::detail {
namespace {

template <RowMap kMap, int kWidth>
struct BackwardPlan {
  static constexpr bool kWide = kWidth > 64;
  static constexpr int kWarps = kWide ? 8 : 4, kThreads = kWarps * kWarp;
  static constexpr int kTiles = kWide ? 1 : 2;                             // of 16 rows a warp
  static constexpr int kBlocks = kWide ? 1 : 2;                            // per multiprocessor
  static constexpr bool kKeepsHidden = !kWide || kMap != RowMap::product;  // dh, in registers
  static constexpr int kRows = kWarps * 16 * kTiles;                       // of a block at a time
  static constexpr int kTile = kRows * kWidth;
  static constexpr int kStage = (1 + kMapParts<kMap>) * kTile;             // x and dy
  static constexpr int kWeights = kMapLayers<kMap> * kWidth * kWidth;
  static constexpr int kElements = kWeights + 2 * kStage + (kMapLayers<kMap> - 1) * kTile;
  static constexpr size_t kBytes = 2 * kElements + kMapLayers<kMap> * kWidth * sizeof(float);
};

template <class T, RowMap kMap, int kWidth>
using Rows = RowFragment<T, kWidth, BackwardPlan<kMap, kWidth>::kTiles>;

// dh of a warp's rows, one or two layers, rounded as the products read it. dy: their tile, a part BackwardPlan::kTile behind
// the other. dh of the layers goes to tiles, too, `apart`, the first at `to`, which may be the first of dy.
template <class T, RowMap kMap, int kWidth>
FLA_DEVICE void hidden_gradients(const Rows<T, kMap, kWidth>& x, const T* dy, const T* weights, const float* bias, T* to,
                                 int apart, Rows<T, kMap, kWidth> (&dh)[kMapLayers<kMap>]) {
  constexpr int kTiles = BackwardPlan<kMap, kWidth>::kTiles, kSpan = kMapSpan<kMap, kWidth>;
  RowSums<kWidth, kTiles> h, second;
  if constexpr (kMap == RowMap::softmax) {
    FLA_UNROLL
    for (int k = 0; k < kWidth / 16; k += kSpan) h.layer(k, kSpan, x, weights, bias);
    FLA_UNROLL
    for (int n = 0; n < 2 * kTiles; ++n) {
      float down[kWidth / 8][2];
      const float factor = signed_softmax(n, h, down);
      warp_barrier();  // dy is not asked for earlier, for want of registers
      // dh / 2 = y dy - y' dy' - mean (y - y'), mean = sum(y dy + y' dy'): what the sum needs of dy it leaves behind.
      const int lane = static_cast<int>(threadIdx.x % kWarp);
      float mean = 0;
      FLA_UNROLL
      for (int q = 0; q < kWidth / 32; ++q) {
        uint32_t words[2][4];
        FLA_UNROLL
        for (int p = 0; p < 2; ++p)
          load_matrices<false>(dy + p * BackwardPlan<kMap, kWidth>::kTile +
                                   place_in_tile<kWidth>(lane % 8, 4 * q + lane / 8) + 8 * n * kWidth,
                               words[p]);
        FLA_UNROLL
        for (int i = 0; i < 8; ++i) {
          float g[2][2];
          FLA_UNROLL
          for (int p = 0; p < 2; ++p) unpack_pair<T>(words[p][i / 2], g[p][0], g[p][1]);
          float &up = h.of_row(n, 4 * q + i / 2, i % 2), &below = down[4 * q + i / 2][i % 2];
          const float difference = fmaf(up, g[0][i % 2], -(below * g[1][i % 2]));
          mean = fmaf(below, g[1][i % 2], fmaf(up, g[0][i % 2], mean));
          below = up - below;
          up = difference;
        }
      }
      mean = factor * quad_sum(mean);
      const float twice = 2.0f * factor;
      FLA_UNROLL
      for (int i = 0; i < kWidth / 4; ++i) {
        float& v = h.of_row(n, i / 2, i % 2);
        v = twice * fmaf(-mean, down[i / 2][i % 2], v);
      }
    }
    warp_barrier();  // all lanes have read the dy that dh replaces
    FLA_UNROLL
    for (int k = 0; k < kWidth / 16; ++k) {
      h.pack_into(k, dh[0]);
      dh[0].store_tile(k, to);
    }
  } else {
    FLA_UNROLL
    for (int k = 0; k < kWidth / 16; ++k) {
      if (k % kSpan == 0) {
        h.layer(k, kSpan, x, weights, bias);
        if constexpr (kMap == RowMap::product) second.layer(k, kSpan, x, weights + kWidth * kWidth, bias + kWidth);
      }
      FLA_UNROLL
      for (int tile = 0; tile < kTiles; ++tile) {
        uint32_t words[4];
        load_matrices<false>(matrices_of_tile<kWidth>(dy, tile, k), words);
        FLA_UNROLL
        for (int word = 0; word < 4; ++word) {
          float g[2];
          unpack_pair<T>(words[word], g[0], g[1]);
          FLA_UNROLL
          for (int e = 0; e < 2; ++e) {
            float& v = h.at(tile, k, word, e);
            if constexpr (kMap == RowMap::product) {
              float& other = second.at(tile, k, word, e);
              const float of_second = v * g[e];
              v = other * g[e];
              other = of_second;
            } else {
              v = v > 0.0f ? g[e] : 0.0f;
            }
          }
        }
      }
      h.pack_into(k, dh[0]);
      if constexpr (kMap == RowMap::product) second.pack_into(k, dh[1]);
      warp_barrier();  // all lanes have read the dy that dh replaces
      FLA_UNROLL
      for (int l = 0; l < kMapLayers<kMap>; ++l) dh[l].store_tile(k, to + l * apart);
    }
  }
}

// What a warp adds to: its share of the outputs x half of the inputs of every dweight, and, in column 0, as many outputs of one
// layer's dbias.
template <int kLayers, int kWidth, int kWarps>
struct WeightSums {
  static constexpr int kGroups = kWarps / 2, kOutputs = kWidth / kGroups, kInputs = kWidth / 2, kTiles = kOutputs / 16;

  float dweight[kLayers][kTiles][kInputs / 8][4] = {}, dbias[kTiles][4] = {};
  int output, input, bias_layer;  // layers take turns: the warps of the first inputs have the first layer's

  FLA_DEVICE WeightSums() {
    const int warp = static_cast<int>(threadIdx.x / kWarp);
    output = warp % kGroups * kOutputs;
    bias_layer = warp / kGroups;
    input = bias_layer * kInputs;
  }

  // += dh^T x over rows of a block, rounded up to 16; dh of layers `apart`.
  template <class T>
  FLA_DEVICE void add(const T* dh, int apart, const T* x, int rows) {
    const int lane = static_cast<int>(threadIdx.x % kWarp), matrix = lane / 8, row = lane % 8;
    const uint32_t ones = pack_pair<T>(1.0f, 1.0f);
    const T *from_dh[kTiles], *from_x[kInputs / 16];
    FLA_UNROLL
    for (int i = 0; i < kTiles; ++i)
      from_dh[i] = dh + place_in_tile<kWidth>(row, output / 8 + 2 * i + matrix % 2) + matrix / 2 * 8 * kWidth;
    FLA_UNROLL
    for (int n = 0; n < kInputs / 16; ++n)
      from_x[n] = x + place_in_tile<kWidth>(row, input / 8 + 2 * n + matrix / 2) + matrix % 2 * 8 * kWidth;
    FLA_UNROLL_BY(kLayers * kWidth > 128 ? 1 : 4)
    for (int at = 0; at < rows * kWidth; at += 16 * kWidth) {
      uint32_t of_dh[kLayers][kTiles][4];
      FLA_UNROLL
      for (int i = 0; i < kTiles; ++i)
        FLA_UNROLL
        for (int l = 0; l < kLayers; ++l) load_matrices<true>(from_dh[i] + l * apart + at, of_dh[l][i]);
      FLA_UNROLL
      for (int i = 0; i < kTiles; ++i) {
        uint32_t of_own[4];
        FLA_UNROLL
        for (int word = 0; word < 4; ++word) of_own[word] = bias_layer == 0 ? of_dh[0][i][word] : of_dh[kLayers - 1][i][word];
        if (bias_layer < kLayers) mma<T>(dbias[i], of_own, ones, ones);
      }
      FLA_UNROLL
      for (int n = 0; n < kInputs / 16; ++n) {
        uint32_t of_x[4];
        load_matrices<true>(from_x[n] + at, of_x);
        FLA_UNROLL
        for (int l = 0; l < kLayers; ++l) {
          FLA_UNROLL
          for (int i = 0; i < kTiles; ++i) {
            mma<T>(dweight[l][i][2 * n], of_dh[l][i], of_x[0], of_x[1]);
            mma<T>(dweight[l][i][2 * n + 1], of_dh[l][i], of_x[2], of_x[3]);
          }
        }
      }
    }
  }

  FLA_DEVICE void store_sums(int layer, float* to, float* bias_to) const {
    const int lane = static_cast<int>(threadIdx.x % kWarp), g = lane / 4, t = lane % 4;
    FLA_UNROLL
    for (int half = 0; half < 2 * kTiles; ++half) {
      const int row = output + g + 8 * half, word = 2 * (half % 2);
      const auto& sums = dweight[layer][half / 2];
      FLA_UNROLL
      for (int n = 0; n < kInputs / 8; ++n) {
        const float pair[2] = {sums[n][word], sums[n][word + 1]};
        if (to) store_floats(to + row * kWidth + input + 8 * n + 2 * t, pair);
      }
      if (bias_to && layer == bias_layer && t == 0) store_float(bias_to + row, dbias[half / 2][word]);
    }
  }
};

// dx of another dtype, or unaligned: the parameters' sums must not depend on how it lies.
template <int kWidth, int kTiles>
FLA_DEVICE void store_elements(RowSums<kWidth, kTiles>& dx, int k, const FusedMapArgs& a, int64_t first) {
  const int lane = static_cast<int>(threadIdx.x % kWarp), g = lane / 4, t = lane % 4;
  FLA_UNROLL
  for (int i = 0; i < 8 * kTiles; ++i) {
    const int tile = i / 8, word = i / 2 % 4;
    const int64_t row = first + 16 * tile + word % 2 * 8 + g;
    if (row < a.rows)
      store_float(a.out, row * a.out_stride + 16 * k + word / 2 * 8 + 2 * t + i % 2, dx.at(tile, k, word, i % 2));
  }
}

// The rows of a warp, whose x and dy are in its tiles: dh to tiles, dx to memory.
template <class T, RowMap kMap, int kWidth>
FLA_DEVICE void work_on_rows(const FusedMapArgs& a, int64_t first, const T* x_tile, const T* weights, const float* bias,
                             T* dh_tile, int apart) {
  constexpr int kLayers = kMapLayers<kMap>;
  Rows<T, kMap, kWidth> x, dh[kLayers];
  x.load_tile(x_tile);
  hidden_gradients<T, kMap, kWidth>(x, x_tile + BackwardPlan<kMap, kWidth>::kTile, weights, bias, dh_tile, apart, dh);
  if (!a.out) return;
  constexpr int kSpan = BackwardPlan<kMap, kWidth>::kKeepsHidden ? 4 : 2;
  Rows<T, kMap, kWidth> packed;
  RowSums<kWidth, BackwardPlan<kMap, kWidth>::kTiles> dx;
  FLA_UNROLL
  for (int k = 0; k < kWidth / 16; ++k) {
    if (k % kSpan == 0) {
      dx.zero(k, kSpan);
      FLA_UNROLL
      for (int l = 0; l < kLayers; ++l) {
        const T* weight = weights + l * kWidth * kWidth;
        if constexpr (BackwardPlan<kMap, kWidth>::kKeepsHidden) dx.template add_product<true>(k, kSpan, dh[l], weight);
        else dx.template add_product<true>(k, kSpan, TileRows<T, kWidth>{dh_tile + l * apart}, weight);
      }
    }
    if (a.vectors) {
      dx.pack_into(k, packed);
      if (k % 4 == 3) packed.store_rows(k / 4, static_cast<T*>(a.out.data), first, a.rows, a.out_stride);
    } else {
      store_elements(dx, k, a, first);
    }
  }
}

template <class T, RowMap kMap, int kWidth>
FLA_KERNEL void FLA_BOUNDS((BackwardPlan<kMap, kWidth>::kThreads), (BackwardPlan<kMap, kWidth>::kBlocks))
    fused_map_backward_kernel(FLA_PARAMETERS FusedMapArgs a) {
  using Plan = BackwardPlan<kMap, kWidth>;
  constexpr int kLayers = kMapLayers<kMap>;
  T* weights = shared_memory<T>();
  T* stages = weights + Plan::kWeights;
  T* second_dh = stages + 2 * Plan::kStage;
  float* bias = reinterpret_cast<float*>(weights + Plan::kElements);
  release_dependents();
  wait_for_predecessor();
  const int in_tile = static_cast<int>(threadIdx.x / kWarp) * 16 * Plan::kTiles;
  const int64_t step = static_cast<int64_t>(gridDim.x) * Plan::kRows;
  const auto fetch = [&](int turn, int64_t base) {
    T* tile = stages + turn * Plan::kStage + in_tile * kWidth;
    Rows<T, kMap, kWidth>::fetch(tile, static_cast<const T*>(a.x), base + in_tile, a.rows, a.x_stride);
    FLA_UNROLL
    for (int p = 0; p < kMapParts<kMap>; ++p)
      Rows<T, kMap, kWidth>::fetch(tile + (1 + p) * Plan::kTile, static_cast<const T*>(a.dy) + p * kWidth, base + in_tile,
                                   a.rows, a.dy_stride);
    async_commit();
  };
  int64_t base = static_cast<int64_t>(blockIdx.x) * Plan::kRows;
  stage_weights<T, kMap, kWidth>(a, weights);
  fetch(0, base);
  stage_biases<kMap, kWidth>(a, bias);
  const bool sums = a.dweight[0] || a.dweight[1] || a.dbias[0] || a.dbias[1];
  WeightSums<kLayers, kWidth, Plan::kWarps> own;
  for (int turn = 0; base < a.rows; base += step, turn ^= 1) {
    const int live = a.rows - base < Plan::kRows ? static_cast<int>(a.rows - base) : Plan::kRows;
    T* const x = stages + turn * Plan::kStage;
    T* const dh = x + Plan::kTile;
    const int apart = static_cast<int>(second_dh - dh);
    async_wait<0>();
    block_barrier();  // the weights are there, or all have added what lies where the next rows go
    fetch(turn ^ 1, base + step);
    if (in_tile < live)
      work_on_rows<T, kMap, kWidth>(a, base + in_tile, x + in_tile * kWidth, weights, bias, dh + in_tile * kWidth, apart);
    if (!sums) continue;
    block_barrier();
    own.add(dh, apart, x, live);
  }
  if (!sums) return;
  const int64_t block = blockIdx.x;
  FLA_UNROLL
  for (int l = 0; l < kLayers; ++l)
    own.store_sums(l, a.dweight[l] ? a.dweight[l] + block * kWidth * kWidth : nullptr,
                   a.dbias[l] ? a.dbias[l] + block * kWidth : nullptr);
}

// Calls body with the plan of a call as a template argument.
template <class Body>
auto with_plan(const LearnedMapBackward& m, Body body) {
  return with_map(m.kind, [&](auto map) {
    constexpr RowMap kMap = decltype(map)::value;
    return m.x.size[1] == 64 ? body(BackwardPlan<kMap, 64>{}) : body(BackwardPlan<kMap, 128>{});
  });
}

int64_t blocks_of(const LearnedMapBackward& m) {
  return with_plan(m, [&](auto plan) {
    const int64_t turns = divide_up(m.x.size[0], plan.kRows), resident = kMapMultiprocessors * plan.kBlocks;
    return turns < resident ? turns : resident;
  });
}

struct Partials {
  float *dweight[2] = {}, *dbias[2] = {};
  size_t bytes = 0;

  explicit Partials(const LearnedMapBackward& m, void* base = nullptr) {
    WorkspaceParts parts(base);
    const int64_t blocks = blocks_of(m), width = m.x.size[1];
    const auto take = [&](const Tensor& wanted, int64_t columns) {
      return static_cast<float*>(parts.take(wanted ? static_cast<size_t>(blocks * columns) * sizeof(float) : 0));
    };
    dweight[0] = take(m.dweight, width * width);
    dweight[1] = take(m.dweight2, width * width);
    dbias[0] = take(m.dbias, width);
    dbias[1] = take(m.dbias2, width);
    bytes = parts.bytes();
  }
};

template <RowMap kMap, int kWidth>
Status launch_map(BackwardPlan<kMap, kWidth> plan, const LearnedMapBackward& m, const FusedMapArgs& a, Stream stream) {
  const Launch shape{.grid = blocks_of(m),
                     .block = plan.kThreads,
                     .shared_bytes = plan.kBytes,
                     .stream = stream,
                     .dependent = true};
  return m.x.dtype == DType::bf16 ? launch<&fused_map_backward_kernel<bf16, kMap, kWidth>>(shape, a)
                                  : launch<&fused_map_backward_kernel<f16, kMap, kWidth>>(shape, a);
}

}  // namespace

bool fuses(const LearnedMapBackward& m) {
  const int64_t width = m.x.size[1];
  return m.kind != LearnedMap::outer_product && size_of(m.x.dtype) == 2 && m.dy.dtype == m.x.dtype &&
         (width == 64 || width == 128) && m.weight.size[0] == width && all_rows_allow(8, m.x, m.weight, m.weight2, m.dy);
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
    const Status s = with_plan(m, [&](auto plan) { return launch_map(plan, m, a, stream); });
    if (!s.ok()) return s;
  }
  return finish_columns({{column_target(partials.dweight[0], m.dweight), column_target(partials.dweight[1], m.dweight2),
                         column_target(partials.dbias[0], m.dbias), column_target(partials.dbias[1], m.dbias2)}},
                        parts, stream);
}

}  // namespace fla::detail
