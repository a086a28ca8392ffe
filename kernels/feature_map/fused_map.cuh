// Products of rows with weights in shared memory. Everything lies in tiles there, panel beside panel (common/warpgroup.cuh), and
// comes and goes as the matrices of the tensor cores: what a product leaves in a lane is, packed, the next product's operand,
// register for register, with no move between. (Lanes that own 16 bytes of a row would spare store_rows its exchange, but ptxas
// then copies every operand into neighbouring registers again for every product.)
#pragma once

#include "common/launch.h"
#include "common/math.cuh"
#include "common/warpgroup.cuh"
#include "feature_map/row_map.h"

namespace fla::detail {

inline constexpr int64_t kMapMultiprocessors = 132;  // whatever the GPU has: the order of sums depends on it

template <RowMap kMap>
inline constexpr int kMapLayers = kMap == RowMap::product ? 2 : 1;
// Sixteens of columns of a layer at a time, as registers allow.
template <RowMap kMap, int kWidth>
inline constexpr int kMapSpan = (kMap == RowMap::product ? 2 : 4) / (kWidth > 64 && kMap != RowMap::softmax ? 2 : 1);
template <RowMap kMap>
inline constexpr int kMapParts = kMap == RowMap::softmax ? 2 : 1;  // of kWidth columns of y

// Where chunk `chunk` (8 elements, 16 bytes) of a row lies in a tile of kRows.
template <int kRows>
FLA_DEVICE int place_in_tile(int row, int chunk) {
  return chunk / 8 * kRows * kPanel + place_in_panel(row, chunk % 8);
}
// Where columns 16 k .. + 15 of a tile of kRows begin as an operand, in eights of elements: and a row.
template <int kRows>
FLA_DEVICE int columns_in_tile(int k) {
  return k / 4 * kRows * (kPanel / 8) + k % 4 * 2;
}
inline constexpr int kRowOfPanel = kPanel / 8;

// Where this lane's row begins of the four matrices that are rows 16 sixteen .. + 15 x columns 16 k .. + 15 of a tile.
template <int kRows, class T>
FLA_DEVICE T* matrices_of_tile(T* tile, int sixteen, int k) {
  const int lane = static_cast<int>(threadIdx.x % kWarp);
  return tile + place_in_tile<kRows>(lane % 16, 2 * k + lane / 16) + 16 * sixteen * kPanel;
}

FLA_DEVICE int rows_left(int64_t left, int most) { return left >= most ? most : left > 0 ? static_cast<int>(left) : 0; }

// The words of four lanes that share a row, neighbouring eights of columns word by word, become 16 bytes each lane.
FLA_DEVICE void exchange_in_quad(uint32_t (&words)[4]) {
  FLA_UNROLL
  for (int bit = 1; bit < 4; bit *= 2) {
    const bool upper = static_cast<int>(threadIdx.x) & bit;
    FLA_UNROLL
    for (int i = 0; i < 4; ++i) {
      if (i & bit) continue;
      const uint32_t got = shuffle_xor(upper ? words[i] : words[i + bit], bit);
      (upper ? words[i] : words[i + bit]) = got;
    }
  }
}

// kTiles times 16 rows of a tile of kTileRows as operands: words 0 and 2 of a lane 4 g + t are columns 16 k + 2 t, + 1 and 16 k + 8 + 2 t, + 1 of row
// g, words 1 and 3 those of row g + 8.
template <class T, int kWidth, int kTiles, int kTileRows = 16 * kTiles>
struct RowFragment {
  static constexpr int kChunks = kWidth / 8;
  uint32_t of[kTiles][kWidth / 16][4];

  // Columns 8 j + 2 t, + 1 of row g + 8 n.
  FLA_DEVICE uint32_t& word(int n, int j) { return of[n / 2][j / 2][j % 2 * 2 + n % 2]; }
  FLA_DEVICE uint32_t word(int n, int j) const { return of[n / 2][j / 2][j % 2 * 2 + n % 2]; }

  // Where this lane's part begins of rows from `first` on.
  static FLA_DEVICE const T* source(const T* rows, int64_t first, int64_t stride) {
    const int lane = static_cast<int>(threadIdx.x % kWarp);
    return rows + (first + lane / kChunks) * stride + 8 * (lane % kChunks);
  }
  // Starts to copy rows from a source to a tile in shared memory; those beyond the first `live` are zeros.
  static FLA_DEVICE void fetch(T* tile, const T* row, int live, int64_t stride) {
    constexpr int kStep = kWarp / kChunks, kPeriod = 8 / kStep;  // rows a copy, copies of eight rows
    const int lane = static_cast<int>(threadIdx.x % kWarp), chunk = lane % kChunks, r = lane / kChunks;
    int place[kPeriod];
    FLA_UNROLL
    for (int i = 0; i < kPeriod; ++i) place[i] = place_in_tile<kTileRows>(r + i * kStep, chunk);
    FLA_UNROLL
    for (int i = 0; i < 16 * kTiles / kStep; ++i) {
      async_copy_or_zeros(tile + place[i % kPeriod] + i / kPeriod * 8 * kPanel, row, r + i * kStep < live);
      row += kStep * stride;
    }
  }
  FLA_DEVICE void load_tile(const T* tile) {
    FLA_UNROLL
    for (int i = 0; i < kTiles; ++i)
      FLA_UNROLL
      for (int k = 0; k < kWidth / 16; ++k) load_matrices<false>(matrices_of_tile<kTileRows>(tile, i, k), of[i][k]);
  }
  // Zeros columns 16 k .. of 16 rows beyond the first `live`.
  FLA_DEVICE void keep_first(int k, int live) {
    static_assert(kTiles == 1);
    if (live == 16) return;
    const int g = static_cast<int>(threadIdx.x % kWarp) / 4;
    FLA_UNROLL
    for (int word = 0; word < 4; ++word)
      if (g + word % 2 * 8 >= live) of[0][k][word] = 0;
  }
  FLA_DEVICE void store_tile(int k, T* tile) const {
    FLA_UNROLL
    for (int i = 0; i < kTiles; ++i) store_matrices(matrices_of_tile<kTileRows>(tile, i, k), of[i][k]);
  }
  // Columns 64 half .. + 63. All their exchanges before the first store: they wait long, but not for each other.
  FLA_DEVICE void store_rows(int half, T* to, int64_t first, int64_t rows, int64_t stride) const {
    const int lane = static_cast<int>(threadIdx.x % kWarp), g = lane / 4, t = lane % 4;
    Vector<T, 8> own[2 * kTiles][2];
    FLA_UNROLL
    for (int i = 0; i < 4 * kTiles; ++i) {
      const int n = i / 2, q = i % 2;
      FLA_UNROLL
      for (int j = 0; j < 4; ++j) own[n][q].words[j] = word(n, 8 * half + 4 * q + j);
      exchange_in_quad(own[n][q].words);
    }
    T* row = to + (first + g) * stride + 64 * half + 8 * t;
    FLA_UNROLL
    for (int n = 0; n < 2 * kTiles; ++n) {
      if (first + g + 8 * n < rows) {
        FLA_UNROLL
        for (int q = 0; q < 2; ++q) store(row + 32 * q, own[n][q]);
      }
      row += 8 * stride;
    }
  }
};

// A product of these rows in fp32.
template <int kWidth, int kTiles>
struct RowSums {
  float sums[kWidth / 8][kTiles][4];

  // The elements of word `word` of an operand (tile, k).
  FLA_DEVICE float& at(int tile, int k, int word, int e) { return sums[2 * k + word / 2][tile][2 * (word % 2) + e]; }
  FLA_DEVICE float at(int tile, int k, int word, int e) const { return sums[2 * k + word / 2][tile][2 * (word % 2) + e]; }
  // Column 8 j + 2 t + e of row g + 8 n.
  FLA_DEVICE float& of_row(int n, int j, int e) { return sums[j][n / 2][2 * (n % 2) + e]; }

  // `span` sixteens of columns from 16 first on: the bias of a layer.
  FLA_DEVICE void start(int first, int span, const float* bias) {
    FLA_UNROLL
    for (int j = 2 * first; j < 2 * (first + span); ++j) {
      float b[2];
      load_floats(bias + 8 * j + static_cast<int>(threadIdx.x % 4) * 2, b);
      FLA_UNROLL
      for (int i = 0; i < 4 * kTiles; ++i) sums[j][i / 4][i % 4] = b[i % 2];
    }
  }
  // Those columns of rows weight^T + bias: a layer. A sum waits for its last product: the more columns in turn, the less.
  template <class T>
  FLA_DEVICE void layer(int first, int span, const RowFragment<T, kWidth, kTiles>& rows, const T* weight, const float* bias) {
    start(first, span, bias);
    const int lane = static_cast<int>(threadIdx.x % kWarp);
    FLA_UNROLL
    for (int k = 0; k < kWidth / 16; ++k) {
      FLA_UNROLL
      for (int n = first; n < first + span; ++n) {
        uint32_t b[4];  // two words for each eight of columns
        load_matrices<false>(
            weight + place_in_tile<kWidth>(lane / 16 * 8 + lane % 8, 2 * k + lane / 8 % 2) + 16 * n * kPanel, b);
        FLA_UNROLL
        for (int tile = 0; tile < kTiles; ++tile) {
          mma<T>(sums[2 * n][tile], rows.of[tile][k], b[0], b[1]);
          mma<T>(sums[2 * n + 1][tile], rows.of[tile][k], b[2], b[3]);
        }
      }
    }
  }
  // 64 columns as a warpgroup's product leaves them, of which 16 rows are this warp's.
  FLA_DEVICE PanelSums& panel(int p) {
    static_assert(kTiles == 1);
    return reinterpret_cast<PanelSums&>(sums[8 * p][0][0]);
  }
  template <class T, int kTileRows>
  FLA_DEVICE void pack_into(int k, RowFragment<T, kWidth, kTiles, kTileRows>& rows) const {
    FLA_UNROLL
    for (int i = 0; i < kTiles; ++i)
      FLA_UNROLL
      for (int word = 0; word < 4; ++word) rows.of[i][k][word] = pack_pair<T>(at(i, k, word, 0), at(i, k, word, 1));
  }
};

// Over the four lanes that share a row.
FLA_DEVICE float quad_max(float v) {
  v = math::max_with_nan(v, shuffle_xor(v, 1));
  return math::max_with_nan(v, shuffle_xor(v, 2));
}
FLA_DEVICE float quad_sum(float v) {
  v += shuffle_xor(v, 1);
  return v + shuffle_xor(v, 2);
}

// Replaces h of row g + 8 n by e^2h and fills `down` with e^-2h, both over a power that keeps them from overflowing. Returns the
// factor that makes them probabilities.
template <int kWidth, int kTiles>
FLA_DEVICE float signed_softmax(int n, RowSums<kWidth, kTiles>& up, float (&down)[kWidth / 8][2]) {
  float top = 0, sum = 0;
  FLA_UNROLL
  for (int i = 0; i < kWidth / 4; ++i) {
    top = math::max_with_nan(top, fabsf(up.of_row(n, i / 2, i % 2)));
  }
  constexpr float kBase2 = 2.0f * math::kLog2E;
  top = kBase2 * quad_max(top);
  FLA_UNROLL
  for (int i = 0; i < kWidth / 4; ++i) {
    float& l = up.of_row(n, i / 2, i % 2);
    down[i / 2][i % 2] = math::exp2(fmaf(-l, kBase2, -top));
    l = math::exp2(fmaf(l, kBase2, -top));
    sum += l + down[i / 2][i % 2];
  }
  return math::reciprocal(quad_sum(sum));
}

// Starts to copy: all vectors of a thread at once, one after the other they would take as long as several tiles.
template <int kWidth, class T>
FLA_DEVICE void stage_weight(const T* weight, int64_t stride, T* staged) {
  constexpr int kChunks = kWidth / 8;
  for (int i = static_cast<int>(threadIdx.x); i < kWidth * kChunks; i += static_cast<int>(blockDim.x)) {
    const int row = i / kChunks, chunk = i % kChunks;
    async_copy<16>(staged + place_in_tile<kWidth>(row, chunk), weight + row * stride + 8 * chunk);
  }
}

struct FusedMapArgs {
  const void *x = nullptr, *dy = nullptr;
  AnyFloat out;                              // y or dx
  bool vectors = true;                       // dx: of the dtype of x, rows aligned
  int64_t x_stride = 0, dy_stride = 0, out_stride = 0, rows = 0;
  const void* weight[2] = {};
  int64_t weight_stride[2] = {};
  AnyFloat bias[2];
  float* dweight[2] = {};                    // [blocks][kWidth][kWidth] partial sums; absent: not asked for
  float* dbias[2] = {};                      // [blocks][kWidth]
};

// Weights of all layers: to be waited for with the next group of asynchronous copies, and a barrier.
template <class T, RowMap kMap, int kWidth>
FLA_DEVICE void stage_weights(const FusedMapArgs& a, T* weights) {
  FLA_UNROLL
  for (int l = 0; l < kMapLayers<kMap>; ++l)
    stage_weight<kWidth>(static_cast<const T*>(a.weight[l]), a.weight_stride[l], weights + l * kWidth * kWidth);
}
// Their biases. These are waited for here: after the first rows have been asked for.
template <RowMap kMap, int kWidth>
FLA_DEVICE void stage_biases(const FusedMapArgs& a, float* staged) {
  for (int i = static_cast<int>(threadIdx.x); i < kWidth; i += static_cast<int>(blockDim.x))
    FLA_UNROLL
    for (int l = 0; l < kMapLayers<kMap>; ++l) staged[l * kWidth + i] = a.bias[l] ? load_float(a.bias[l], i) : 0.0f;
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

}  // namespace fla::detail
