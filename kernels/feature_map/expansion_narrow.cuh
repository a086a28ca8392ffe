// Expansions of rows of 16 elements in 16 bits, in both directions: a lane takes a row and keeps it in registers, every column
// known when compiled; the expanded rows of a warp lie in shared memory as they lie in memory, so that one run of 16-byte
// vectors moves them. Rows of an odd number of columns begin in the middle of a word in every second lane: those take the same
// words from the other half. Warps walk over tiles, each with a ring of two of its own: while it works on one the other moves,
// and no warp waits for another.
#pragma once

#include "feature_map/expansion.cuh"

namespace fla::detail {

inline constexpr int kNarrowWidth = 16, kNarrowRows = kWarp;

// x of a taylor or rebased map, and its columns or their gradient.
inline bool is_narrow(const ExpansionColumns& c, const Tensor& x, const Tensor& expanded) {
  return c.width == kNarrowWidth && c.squares && c.triangle && !c.partner && size_of(x.dtype) == 2 && expanded.dtype == x.dtype;
}

// kAffine: rebased, squares and pairs; else taylor, 1, the row, squares and pairs.
template <bool kAffine>
struct NarrowColumns {
  static constexpr int kLinear = kAffine ? 0 : 1, kSquares = kAffine ? 0 : 1 + kNarrowWidth;
  static constexpr int kTriangle = kSquares + kNarrowWidth;
  static constexpr int kCount = kTriangle + kNarrowWidth * (kNarrowWidth - 1) / 2;
};

// As many warps as a multiprocessor has shared memory for, about.
template <bool kAffine>
struct NarrowPlan {
  static constexpr int kWarps = kAffine ? 4 : 11, kBlocks = kAffine ? 3 : 1;  // of a block; on a multiprocessor
  static constexpr int kThreads = kWarps * kWarp;
  static constexpr int kTile = kNarrowRows * NarrowColumns<kAffine>::kCount;  // elements
  static constexpr int kTileWords = kWarps * 2 * kTile / 2;                   // of all rings
};
template <bool kAffine>
int64_t narrow_blocks(int64_t rows) {
  constexpr int64_t kResident = 132 * NarrowPlan<kAffine>::kBlocks;  // whatever the GPU has: the order of sums depends on it
  const int64_t blocks = divide_up(rows, kNarrowRows * NarrowPlan<kAffine>::kWarps);
  return blocks < kResident ? blocks : kResident;
}

// The tiles of a warp, in turn with all others: first those of the first warps of all blocks, so that the last turn, too, is shared
// among all multiprocessors.
struct NarrowWalk {
  int64_t first, step, end;  // rows

  FLA_DEVICE NarrowWalk(const ExpansionTile& a, int warps, int warp)
      : first((static_cast<int64_t>(warp) * gridDim.x + blockIdx.x) * kNarrowRows),
        step(static_cast<int64_t>(gridDim.x) * warps * kNarrowRows),
        end(a.rows) {}
  FLA_DEVICE int rows_from(int64_t row) const {
    return row >= end ? 0 : end - row < kNarrowRows ? static_cast<int>(end - row) : kNarrowRows;
  }
};

FLA_DEVICE void stage_parameters(const ExpansionTile& a, float* gamma, float* beta) {
  const int thread = static_cast<int>(threadIdx.x);
  if (thread >= kNarrowWidth) return;
  gamma[thread] = a.gamma ? load_float(a.gamma, thread) : 1.0f;
  beta[thread] = a.beta ? load_float(a.beta, thread) : 0.0f;
}

// A row of x as it lies in memory, on its way before it is needed; zeros where there is no such row.
template <class T>
struct NarrowInput {
  Vector<T, 8> halves[2];

  FLA_DEVICE void fetch(const ExpansionTile& a, int64_t row) {
    const T* from = static_cast<const T*>(a.x.data) + row * a.x_stride;
    FLA_UNROLL
    for (int h = 0; h < 2; ++h) {
      halves[h] = zero_vector<T, 8>();
      if (row >= a.rows) continue;
      if (a.aligned) {
        halves[h] = load<T, 8>(from + 8 * h);
      } else {
        FLA_UNROLL
        for (int e = 0; e < 8; ++e) halves[h].words[e / 2] |= load<T, 1>(from + 8 * h + e).words[0] << 16 * (e % 2);
      }
    }
  }
};

// t, and what rows of a rebased map were made of. x comes as t goes.
struct NarrowRow {
  float t[kNarrowWidth], xhat[kNarrowWidth];
  float rstd = 1;

  template <class T>
  FLA_DEVICE void take(const NarrowInput<T>& x) {
    FLA_UNROLL
    for (int h = 0; h < 2; ++h) {
      float half[8];
      unpack(x.halves[h], half);
      FLA_UNROLL
      for (int e = 0; e < 8; ++e) t[8 * h + e] = half[e];
    }
  }
  FLA_DEVICE void scale(const ExpansionTile& a) {
    FLA_UNROLL
    for (int i = 0; i < kNarrowWidth; ++i) t[i] *= a.scale;
  }
  FLA_DEVICE void prepare(const ExpansionTile& a, const float* gamma, const float* beta) {
    float mean = 0;
    if (a.normalize) {
      FLA_UNROLL
      for (int i = 0; i < kNarrowWidth; ++i) mean += t[i];
      mean *= 1.0f / kNarrowWidth;
      float squares = 0;
      FLA_UNROLL
      for (int i = 0; i < kNarrowWidth; ++i) squares = fmaf(t[i] - mean, t[i] - mean, squares);
      rstd = math::rsqrt(squares * (1.0f / kNarrowWidth) + a.eps);
    }
    FLA_UNROLL
    for (int i = 0; i < kNarrowWidth; ++i) {
      xhat[i] = (t[i] - mean) * rstd;
      t[i] = fmaf(xhat[i], gamma[i], beta[i]) * a.scale;
    }
  }
  // dx from dv.
  FLA_DEVICE void finish(const ExpansionTile& a, const float* gamma, float (&d)[kNarrowWidth]) const {
    float mean = 0, slope = 0;
    FLA_UNROLL
    for (int i = 0; i < kNarrowWidth; ++i) {
      d[i] *= gamma[i];
      mean += d[i];
      slope = fmaf(d[i], xhat[i], slope);
    }
    if (!a.normalize) return;
    mean *= 1.0f / kNarrowWidth;
    slope *= 1.0f / kNarrowWidth;
    FLA_UNROLL
    for (int i = 0; i < kNarrowWidth; ++i) d[i] = (d[i] - mean - xhat[i] * slope) * rstd;
  }
};

// A row of a tile in shared memory, read or written in order: at(0), at(1), .. or put(0, v), put(1, v), .., every column
// once and known when compiled.
template <class T, int kColumns>
class NarrowLine {
 public:
  FLA_DEVICE NarrowLine(T* tile, int row)
      : row_(tile + row * kColumns), late_(kColumns % 2 != 0 && row % 2 != 0) {}

  FLA_DEVICE float at(int column) {
    if constexpr (kColumns % 8 == 0) {
      if (column % 8 == 0) load_floats(row_ + column, values_);
      return values_[column % 8];
    } else {
      static_assert(kColumns % 2 != 0);
      const uint32_t* words = reinterpret_cast<const uint32_t*>(row_ - (late_ ? 1 : 0));
      if (column == 0) unpack_pair<T>(words[0], values_[0], values_[1]);
      if (column % 2 == 0) return late_ ? values_[1] : values_[0];
      const float high = values_[1];
      unpack_pair<T>(words[(column + 1) / 2], values_[0], values_[1]);
      return late_ ? values_[0] : high;
    }
  }
  FLA_DEVICE void put(int column, float value) {
    if constexpr (kColumns % 8 == 0) {
      values_[column % 8] = value;
      if (column % 8 == 7) store_floats(row_ + column - 7, values_);
    } else {
      static_assert(kColumns % 2 != 0);
      if (column == 0) values_[2] = value;  // the late row's own
      if (column > 0 && column % 2 == 0) {
        const uint32_t pair = late_ ? pack_pair<T>(values_[1], value) : pack_pair<T>(values_[0], values_[1]);
        reinterpret_cast<uint32_t*>(row_ + (late_ ? 1 : 0))[column / 2 - 1] = pair;
      }
      values_[column % 2] = value;
      if (column == kColumns - 1) store_float(row_ + (late_ ? 0 : column), late_ ? values_[2] : value);
    }
  }

 private:
  T* row_;
  bool late_;
  float values_[8] = {};
};

// Forward: x and out of one 16-bit dtype, out dense and aligned to 16 bytes.
Status run_narrow(const ExpansionTile&, void* out, DType, Stream);

}  // namespace fla::detail
