// Products of 16 rows a warp with weights in shared memory, without moving a fragment between lanes. Which of its own rows'
// columns a lane calls which k, and which column of the result which n, is free as long as both operands agree; here lane
// 4 g + t owns columns 32 q + 8 t .. + 7 of rows g and g + 8, of what it loads, of what it makes and of what it stores. So a
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
inline constexpr int kWarpRows = 16, kMapWarps = 4;
inline constexpr int kWeightStride = 96;     // rows of a weight 48 words apart: neighbours fill all banks
inline constexpr int kTileStride = 72;       // 36 words: eight rows of 16 bytes in different banks

template <RowMap kMap>
inline constexpr int kMapLayers = kMap == RowMap::product ? 2 : 1;
template <RowMap kMap>
inline constexpr int kMapParts = kMap == RowMap::softmax ? 2 : 1;  // of 64 columns of y

// A lane's share of 16 rows: [row g or g + 8][columns 32 q + 8 t ..].
template <class T>
struct RowFragment {
  Vector<T, 8> of[2][kMapHalves];

  // Rows at or beyond `rows` are zeros.
  FLA_DEVICE void load_rows(const T* from, int64_t first, int64_t rows, int64_t stride) {
    const int lane = static_cast<int>(threadIdx.x) % kWarp, g = lane / 4, t = lane % 4;
    FLA_UNROLL
    for (int half = 0; half < 2; ++half) {
      const int64_t row = first + g + 8 * half;
      FLA_UNROLL
      for (int q = 0; q < kMapHalves; ++q)
        of[half][q] = row < rows ? load<T, 8>(from + row * stride + 32 * q + 8 * t) : zero_vector<T, 8>();
    }
  }
  FLA_DEVICE void store_rows(T* to, int64_t first, int64_t rows, int64_t stride) const {
    const int lane = static_cast<int>(threadIdx.x) % kWarp, g = lane / 4, t = lane % 4;
    FLA_UNROLL
    for (int half = 0; half < 2; ++half) {
      const int64_t row = first + g + 8 * half;
      if (row >= rows) continue;
      FLA_UNROLL
      for (int q = 0; q < kMapHalves; ++q) store(to + row * stride + 32 * q + 8 * t, of[half][q]);
    }
  }
};

// A product in fp32: element e of [half][q] is sums[4 q + e / 2][2 half + e % 2].
struct RowSums {
  float sums[4 * kMapHalves][4];

  FLA_DEVICE float& at(int half, int q, int e) { return sums[4 * q + e / 2][2 * half + e % 2]; }

  // Columns 32 q .. + 31 and their kin of rows weight^T, the weight [64][kWeightStride] in shared memory; kAdd: added.
  template <bool kAdd, class T>
  FLA_DEVICE void product(int q, const RowFragment<T>& rows, const T* weight) {
    const int lane = static_cast<int>(threadIdx.x) % kWarp, g = lane / 4, t = lane % 4;
    const T* own = weight + (32 * q + 8 * (g >> 1) + (g & 1)) * kWeightStride + 8 * t;
    FLA_UNROLL
    for (int j = 4 * q; !kAdd && j < 4 * q + 4; ++j)
      FLA_UNROLL
      for (int i = 0; i < 4; ++i) sums[j][i] = 0;
    FLA_UNROLL
    for (int in = 0; in < kMapHalves; ++in) {
      FLA_UNROLL
      for (int j = 0; j < 4; ++j) {
        const auto w = load<T, 8>(own + 2 * j * kWeightStride + 32 * in);
        FLA_UNROLL
        for (int k = 0; k < 4; k += 2) {
          const uint32_t a[4] = {rows.of[0][in].words[k], rows.of[1][in].words[k], rows.of[0][in].words[k + 1],
                                 rows.of[1][in].words[k + 1]};
          mma<T>(sums[4 * q + j], a, w.words[k], w.words[k + 1]);
        }
      }
    }
  }
  // rows weight^T + bias: a layer.
  template <class T>
  FLA_DEVICE void layer(int q, const RowFragment<T>& rows, const T* weight, const float* bias) {
    product<false>(q, rows, weight);
    const int t = static_cast<int>(threadIdx.x) % 4;
    FLA_UNROLL
    for (int e = 0; e < 8; ++e) {
      const float b = bias[32 * q + 8 * t + e];
      at(0, q, e) += b;
      at(1, q, e) += b;
    }
  }
  template <class T>
  FLA_DEVICE Vector<T, 8> packed(int half, int q) const {
    Vector<T, 8> v;
    FLA_UNROLL
    for (int k = 0; k < 4; ++k) v.words[k] = pack_pair<T>(sums[4 * q + k][2 * half], sums[4 * q + k][2 * half + 1]);
    return v;
  }
  // Columns 32 q .. of the rows.
  template <class T>
  FLA_DEVICE void store_rows(int q, T* to, int64_t first, int64_t rows, int64_t stride) const {
    const int lane = static_cast<int>(threadIdx.x) % kWarp, g = lane / 4, t = lane % 4;
    FLA_UNROLL
    for (int half = 0; half < 2; ++half) {
      const int64_t row = first + g + 8 * half;
      if (row < rows) store(to + row * stride + 32 * q + 8 * t, packed<T>(half, q));
    }
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

// Replaces h by e^2h and fills `down` with e^-2h, both over the row's largest; factor[half] makes them probabilities.
FLA_DEVICE void signed_softmax(RowSums& up, RowSums& down, float (&factor)[2]) {
  FLA_UNROLL
  for (int half = 0; half < 2; ++half) {
    float top = 0, sum = 0;
    FLA_UNROLL
    for (int q = 0; q < kMapHalves; ++q) {
      FLA_UNROLL
      for (int e = 0; e < 8; ++e) {
        float& l = up.at(half, q, e);
        l *= 2.0f * math::kLog2E;
        top = math::max_with_nan(top, fabsf(l));
      }
    }
    top = quad_max(top);
    FLA_UNROLL
    for (int q = 0; q < kMapHalves; ++q) {
      FLA_UNROLL
      for (int e = 0; e < 8; ++e) {
        const float l = up.at(half, q, e);
        up.at(half, q, e) = math::exp2(l - top);
        down.at(half, q, e) = math::exp2(-l - top);
        sum += up.at(half, q, e) + down.at(half, q, e);
      }
    }
    factor[half] = math::reciprocal(quad_sum(sum));
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
