// Products of 16 or 32 rows a warp with weights in shared memory, without moving a fragment between lanes. Which of its own
// rows' columns a lane calls which k, and which column of the result which n, is free as long as both operands agree; here
// lane 4 g + t owns columns 32 q + 8 t .. + 7 of rows g, g + 8, .., of what it loads, of what it makes and of what it stores.
// So a result is the next product's operand, and memory is read and written in 16-byte vectors. A weight lies in shared memory
// with its rows and columns renamed alike (place_of), so that one copy serves products with it and with its transpose.
#pragma once

#include "common/launch.h"
#include "common/math.cuh"
#include "common/mma.cuh"
#include "common/ptx.cuh"
#include "feature_map/row_map.h"

namespace fla::detail {

inline constexpr int kMapWarps = 8;
inline constexpr int64_t kMapMultiprocessors = 132;  // whatever the GPU has: the order of sums depends on it

template <int kWidth>
inline constexpr int kMapSlices = kWidth / 32;  // of 32 columns
template <RowMap kMap>
inline constexpr int kMapLayers = kMap == RowMap::product ? 2 : 1;
template <RowMap kMap>
inline constexpr int kMapParts = kMap == RowMap::softmax ? 2 : 1;  // of kWidth columns of y

// Where chunk `chunk` (8 elements, 16 bytes) of a row of a tile [rows][kWidth] lies, but for eights of rows: neither eight
// rows of one chunk nor two neighbouring rows of four meet in a bank.
template <int kWidth>
FLA_DEVICE int place_in_tile(int row, int chunk) {
  return row * kWidth + 8 * (chunk ^ ((row & 1) << 2 | (row >> 1 & 3)));
}

// Vector q of row g + 8 n that is this lane's own, in a tile of the warp's rows.
template <int kWidth, class T>
FLA_DEVICE T* own_vector(T* tile, int n, int q) {
  const int lane = static_cast<int>(threadIdx.x % kWarp);
  return tile + place_in_tile<kWidth>(lane / 4, 4 * q + lane % 4) + 8 * n * kWidth;
}

// A lane's share of kTiles times 16 rows: [row g + 8 n][columns 32 q + 8 t ..].
template <class T, int kWidth, int kTiles>
struct RowFragment {
  using Element = T;
  Vector<T, 8> of[2 * kTiles][kMapSlices<kWidth>];

  FLA_DEVICE const Vector<T, 8>& vector(int n, int q) const { return of[n][q]; }

  // Starts to copy rows to a tile in shared memory, every lane what it owns; those at or beyond `rows` are zeros.
  static FLA_DEVICE void fetch(T* tile, const T* from, int64_t first, int64_t rows, int64_t stride) {
    if (first >= rows) return;
    const int lane = static_cast<int>(threadIdx.x % kWarp), g = lane / 4, t = lane % 4;
    FLA_UNROLL
    for (int n = 0; n < 2 * kTiles; ++n) {
      const int64_t row = first + g + 8 * n;
      if (row < rows) {
        FLA_UNROLL
        for (int q = 0; q < kMapSlices<kWidth>; ++q)
          async_copy<16>(own_vector<kWidth>(tile, n, q), from + row * stride + 32 * q + 8 * t);
      } else {
        FLA_UNROLL
        for (int q = 0; q < kMapSlices<kWidth>; ++q) store(own_vector<kWidth>(tile, n, q), zero_vector<T, 8>());
      }
    }
  }
  FLA_DEVICE void load_tile(const T* tile) {
    FLA_UNROLL
    for (int n = 0; n < 2 * kTiles; ++n)
      FLA_UNROLL
      for (int q = 0; q < kMapSlices<kWidth>; ++q) of[n][q] = load<T, 8>(own_vector<kWidth>(tile, n, q));
  }
  FLA_DEVICE void store_tile(int q, T* tile) const {
    FLA_UNROLL
    for (int n = 0; n < 2 * kTiles; ++n) store(own_vector<kWidth>(tile, n, q), of[n][q]);
  }
  FLA_DEVICE void store_rows(int q, T* to, int64_t first, int64_t rows, int64_t stride) const {
    const int lane = static_cast<int>(threadIdx.x % kWarp), g = lane / 4, t = lane % 4;
    FLA_UNROLL
    for (int n = 0; n < 2 * kTiles; ++n) {
      const int64_t row = first + g + 8 * n;
      if (row < rows) store(to + row * stride + 32 * q + 8 * t, of[n][q]);
    }
  }
};

// The same, read from a tile where it is used.
template <class T, int kWidth>
struct TileRows {
  using Element = T;
  const T* tile;

  FLA_DEVICE Vector<T, 8> vector(int n, int q) const { return load<T, 8>(own_vector<kWidth>(tile, n, q)); }
};

// A product of these rows in fp32, laid out as the fragments of its columns are.
template <int kWidth, int kTiles>
struct RowSums {
  float sums[4 * kMapSlices<kWidth>][kTiles][4];

  FLA_DEVICE float& at(int n, int q, int e) { return sums[4 * q + e / 2][n / 2][2 * (n % 2) + e % 2]; }

  // Columns 32 q .. + 31 of rows weight^T, or of rows weight where kPlain; kAdd: added. The weight as stage_weight leaves it.
  template <bool kAdd, bool kPlain, class Rows, class T = typename Rows::Element>
  FLA_DEVICE void product(int q, const Rows& rows, const T* weight) {
    const int lane = static_cast<int>(threadIdx.x % kWarp), matrix = lane / 8;
    FLA_UNROLL
    for (int j = 0; j < 4; ++j)
      FLA_UNROLL
      for (int i = 0; !kAdd && i < 4 * kTiles; ++i) sums[4 * q + j][i / 4][i % 4] = 0;
    FLA_UNROLL
    for (int in = 0; in < kMapSlices<kWidth>; ++in) {
      Vector<T, 8> own[2 * kTiles];
      FLA_UNROLL
      for (int n = 0; n < 2 * kTiles; ++n) own[n] = rows.vector(n, in);
      FLA_UNROLL
      for (int two = 0; two < 4; two += 2) {
        uint32_t w[2][4];  // neighbouring eights of rows of the weight, four eights of its columns
        FLA_UNROLL
        for (int i = 0; i < 2; ++i) {
          const int row = 32 * (kPlain ? in : q) + 8 * (two + i), chunk = 4 * (kPlain ? q : in) + matrix;
          load_matrices<kPlain>(weight + place_in_tile<kWidth>(lane % 8, chunk) + row * kWidth, w[i]);
        }
        FLA_UNROLL
        for (int m = 0; m < 4; ++m) {
          const int k = kPlain ? two : m / 2 * 2, j = kPlain ? m : two + m % 2;
          FLA_UNROLL
          for (int tile = 0; tile < kTiles; ++tile) {
            const auto &low = own[2 * tile], &high = own[2 * tile + 1];
            const uint32_t a[4] = {low.words[k], high.words[k], low.words[k + 1], high.words[k + 1]};
            mma<T>(sums[4 * q + j][tile], a, kPlain ? w[0][m] : w[m % 2][k], kPlain ? w[1][m] : w[m % 2][k + 1]);
          }
        }
      }
    }
  }
  // rows weight^T + bias: a layer.
  template <class Rows, class T = typename Rows::Element>
  FLA_DEVICE void layer(int q, const Rows& rows, const T* weight, const float* bias) {
    product<false, false>(q, rows, weight);
    float b[8];
    load_floats(bias + 32 * q + static_cast<int>(threadIdx.x % 4) * 8, b);
    FLA_UNROLL
    for (int n = 0; n < 2 * kTiles; ++n)
      FLA_UNROLL
      for (int e = 0; e < 8; ++e) at(n, q, e) += b[e];
  }
  template <class T>
  FLA_DEVICE Vector<T, 8> packed(int n, int q) const {
    Vector<T, 8> v;
    FLA_UNROLL
    for (int k = 0; k < 4; ++k) {
      const float* pair = &sums[4 * q + k][n / 2][2 * (n % 2)];
      v.words[k] = pack_pair<T>(pair[0], pair[1]);
    }
    return v;
  }
  template <class T>
  FLA_DEVICE void pack_into(int q, RowFragment<T, kWidth, kTiles>& rows) const {
    FLA_UNROLL
    for (int n = 0; n < 2 * kTiles; ++n) rows.of[n][q] = packed<T>(n, q);
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

// Replaces h of row n by e^2h and fills `down` with e^-2h, both over a power that keeps them from overflowing. Returns the
// factor that makes them probabilities.
template <int kWidth, int kTiles>
FLA_DEVICE float signed_softmax(int n, RowSums<kWidth, kTiles>& up, float (&down)[kMapSlices<kWidth>][8]) {
  float top = 0, sum = 0;
  FLA_UNROLL
  for (int q = 0; q < kMapSlices<kWidth>; ++q) {
    FLA_UNROLL
    for (int e = 0; e < 8; ++e) {
      float& l = up.at(n, q, e);
      l *= 2.0f * math::kLog2E;
      top = math::max_with_nan(top, fabsf(l));
    }
  }
  top = quad_max(top);
  FLA_UNROLL
  for (int q = 0; q < kMapSlices<kWidth>; ++q) {
    FLA_UNROLL
    for (int e = 0; e < 8; ++e) {
      const float l = up.at(n, q, e);
      up.at(n, q, e) = math::exp2(l - top);
      down[q][e] = math::exp2(-l - top);
      sum += up.at(n, q, e) + down[q][e];
    }
  }
  return math::reciprocal(quad_sum(sum));
}

// The name, in shared memory, of row or column i of a weight: what a lane owns as 8 t + 2 j + b of 32 is 8 j + 2 t + b of a
// fragment of a product.
FLA_DEVICE int place_of(int i) { return i / 32 * 32 + i / 2 % 4 * 8 + i / 8 % 4 * 2 + i % 2; }

template <int kWidth, class T>
FLA_DEVICE void stage_weight(const T* weight, int64_t stride, T* staged) {
  constexpr int kChunks = kWidth / 8;
  for (int i = static_cast<int>(threadIdx.x); i < kWidth * kChunks; i += static_cast<int>(blockDim.x)) {
    const int row = i / kChunks, chunk = i % kChunks, place = place_of(row);
    const auto v = load<T, 8>(weight + row * stride + 8 * chunk);
    FLA_UNROLL
    for (int k = 0; k < 4; ++k) {
      T* const to = staged + place_in_tile<kWidth>(place % 8, chunk / 4 * 4 + k) + place / 8 * 8 * kWidth;
      store(to + 2 * (chunk % 4), Vector<T, 2>{v.words[k]});
    }
  }
}

template <int kWidth>
FLA_DEVICE void stage_bias(const AnyFloat& bias, float* staged) {
  for (int i = static_cast<int>(threadIdx.x); i < kWidth; i += static_cast<int>(blockDim.x))
    staged[i] = bias ? load_float(bias, i) : 0.0f;
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

// Weights and biases of all layers.
template <class T, RowMap kMap, int kWidth>
FLA_DEVICE void stage_layers(const FusedMapArgs& a, T* weights, float* bias) {
  FLA_UNROLL
  for (int l = 0; l < kMapLayers<kMap>; ++l) {
    stage_weight<kWidth>(static_cast<const T*>(a.weight[l]), a.weight_stride[l], weights + l * kWidth * kWidth);
    stage_bias<kWidth>(a.bias[l], bias + l * kWidth);
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

}  // namespace fla::detail
