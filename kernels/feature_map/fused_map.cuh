// Products of 16 or 32 rows a warp with weights in shared memory, without moving a fragment between lanes. Which of its own rows'
// columns a lane calls which k, and which column of the result which n, is free as long as both operands agree; here lane
// 4 g + t owns columns 32 q + 8 t .. + 7 of rows g, g + 8, .., of what it loads, of what it makes and of what it stores. So a
// result is the next product's operand, and memory is read and written in 16-byte vectors.
#pragma once

#include "common/launch.h"
#include "common/math.cuh"
#include "common/mma.cuh"
#include "common/ptx.cuh"
#include "feature_map/row_map.h"

namespace fla::detail {

inline constexpr int kMapWidth = 64;         // D and E
inline constexpr int kMapHalves = kMapWidth / 32;
inline constexpr int kMapWarps = 4;
inline constexpr int kWeightStride = 96;     // rows of a weight 48 words apart: neighbours fill all banks
inline constexpr int kTileStride = 72;       // 36 words: eight rows of 16 bytes in different banks

template <RowMap kMap>
inline constexpr int kMapLayers = kMap == RowMap::product ? 2 : 1;
template <RowMap kMap>
inline constexpr int kMapParts = kMap == RowMap::softmax ? 2 : 1;  // of 64 columns of y

// A lane's share of kTiles times 16 rows: [row g + 8 n][columns 32 q + 8 t ..].
template <class T, int kTiles>
struct RowFragment {
  Vector<T, 8> of[2 * kTiles][kMapHalves];

  // Rows at or beyond `rows` are zeros.
  FLA_DEVICE void load_rows(const T* from, int64_t first, int64_t rows, int64_t stride) {
    const int lane = static_cast<int>(threadIdx.x) % kWarp, g = lane / 4, t = lane % 4;
    FLA_UNROLL
    for (int n = 0; n < 2 * kTiles; ++n) {
      const int64_t row = first + g + 8 * n;
      FLA_UNROLL
      for (int q = 0; q < kMapHalves; ++q)
        of[n][q] = row < rows ? load<T, 8>(from + row * stride + 32 * q + 8 * t) : zero_vector<T, 8>();
    }
  }
  FLA_DEVICE void store_half(int q, T* to, int64_t first, int64_t rows, int64_t stride) const {
    const int lane = static_cast<int>(threadIdx.x) % kWarp, g = lane / 4, t = lane % 4;
    FLA_UNROLL
    for (int n = 0; n < 2 * kTiles; ++n) {
      const int64_t row = first + g + 8 * n;
      if (row < rows) store(to + row * stride + 32 * q + 8 * t, of[n][q]);
    }
  }
  FLA_DEVICE void store_rows(T* to, int64_t first, int64_t rows, int64_t stride) const {
    FLA_UNROLL
    for (int q = 0; q < kMapHalves; ++q) store_half(q, to, first, rows, stride);
  }
};

// A product of these rows in fp32, laid out as the fragments of its columns are.
template <int kTiles>
struct RowSums {
  float sums[4 * kMapHalves][kTiles][4];

  FLA_DEVICE float& at(int n, int q, int e) { return sums[4 * q + e / 2][n / 2][2 * (n % 2) + e % 2]; }

  // Columns 32 q .. + 31 of rows weight^T, the weight [64][kWeightStride] in shared memory; kAdd: added.
  template <bool kAdd, class T>
  FLA_DEVICE void product(int q, const RowFragment<T, kTiles>& rows, const T* weight) {
    const int lane = static_cast<int>(threadIdx.x) % kWarp, g = lane / 4, t = lane % 4;
    const T* own = weight + (32 * q + 8 * (g >> 1) + (g & 1)) * kWeightStride + 8 * t;
    FLA_UNROLL
    for (int j = 0; j < 4; ++j) {
      float(&sum)[kTiles][4] = sums[4 * q + j];
      FLA_UNROLL
      for (int i = 0; !kAdd && i < 4 * kTiles; ++i) sum[i / 4][i % 4] = 0;
      FLA_UNROLL
      for (int in = 0; in < kMapHalves; ++in) {
        const auto w = load<T, 8>(own + 2 * j * kWeightStride + 32 * in);
        FLA_UNROLL
        for (int k = 0; k < 4; k += 2) {
          FLA_UNROLL
          for (int tile = 0; tile < kTiles; ++tile) {
            const auto &low = rows.of[2 * tile][in], &high = rows.of[2 * tile + 1][in];
            const uint32_t a[4] = {low.words[k], high.words[k], low.words[k + 1], high.words[k + 1]};
            mma<T>(sum[tile], a, w.words[k], w.words[k + 1]);
          }
        }
      }
    }
  }
  // rows weight^T + bias: a layer.
  template <class T>
  FLA_DEVICE void layer(int q, const RowFragment<T, kTiles>& rows, const T* weight, const float* bias) {
    product<false>(q, rows, weight);
    float b[8];
    load_floats(bias + 32 * q + static_cast<int>(threadIdx.x) % 4 * 8, b);
    FLA_UNROLL
    for (int n = 0; n < 2 * kTiles; ++n)
      FLA_UNROLL
      for (int e = 0; e < 8; ++e) at(n, q, e) += b[e];
  }
  template <class T>
  FLA_DEVICE void pack_into(int q, RowFragment<T, kTiles>& rows) const {
    FLA_UNROLL
    for (int n = 0; n < 2 * kTiles; ++n) {
      FLA_UNROLL
      for (int k = 0; k < 4; ++k) {
        const float* pair = &sums[4 * q + k][n / 2][2 * (n % 2)];
        rows.of[n][q].words[k] = pack_pair<T>(pair[0], pair[1]);
      }
    }
  }
  template <class T>
  FLA_DEVICE RowFragment<T, kTiles> packed() const {
    RowFragment<T, kTiles> rows;
    FLA_UNROLL
    for (int q = 0; q < kMapHalves; ++q) pack_into(q, rows);
    return rows;
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

// Replaces h by e^2h and fills `down` with e^-2h, both over the row's sum: probabilities.
template <int kTiles>
FLA_DEVICE void signed_softmax(RowSums<kTiles>& up, RowSums<kTiles>& down) {
  FLA_UNROLL
  for (int n = 0; n < 2 * kTiles; ++n) {
    float top = 0, sum = 0;
    FLA_UNROLL
    for (int q = 0; q < kMapHalves; ++q) {
      FLA_UNROLL
      for (int e = 0; e < 8; ++e) {
        float& l = up.at(n, q, e);
        l *= 2.0f * math::kLog2E;
        top = math::max_with_nan(top, fabsf(l));
      }
    }
    top = quad_max(top);
    FLA_UNROLL
    for (int q = 0; q < kMapHalves; ++q) {
      FLA_UNROLL
      for (int e = 0; e < 8; ++e) {
        const float l = up.at(n, q, e);
        up.at(n, q, e) = math::exp2(l - top);
        down.at(n, q, e) = math::exp2(-l - top);
        sum += up.at(n, q, e) + down.at(n, q, e);
      }
    }
    const float factor = math::reciprocal(quad_sum(sum));
    FLA_UNROLL
    for (int q = 0; q < kMapHalves; ++q) {
      FLA_UNROLL
      for (int e = 0; e < 8; ++e) {
        up.at(n, q, e) *= factor;
        down.at(n, q, e) *= factor;
      }
    }
  }
}

// weight [64, 64] as it is, or its transpose, to shared memory.
template <class T>
FLA_DEVICE void stage_weight(const T* weight, int64_t stride, bool transpose, T* staged) {
  for (int i = static_cast<int>(threadIdx.x); i < kMapWidth * kMapWidth / 8; i += static_cast<int>(blockDim.x)) {
    const int row = i / 8, column = i % 8 * 8;
    const auto v = load<T, 8>(weight + row * stride + column);
    if (!transpose) {
      store(staged + row * kWeightStride + column, v);
      continue;
    }
    FLA_UNROLL
    for (int e = 0; e < 8; ++e)
      staged[(column + e) * kWeightStride + row] = T{static_cast<uint16_t>(v.words[e / 2] >> 16 * (e % 2))};
  }
}

FLA_DEVICE void stage_bias(const AnyFloat& bias, float* staged) {
  for (int i = static_cast<int>(threadIdx.x); i < kMapWidth; i += static_cast<int>(blockDim.x))
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
  float* dweight[2] = {};                    // [blocks][64][64] partial sums; absent: not asked for
  float* dbias[2] = {};                      // [blocks][64]
};

}  // namespace fla::detail
