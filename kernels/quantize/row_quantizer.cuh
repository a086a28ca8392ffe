// The quantising end of a row kernel: from the values of a row that its threads hold, as stored, to the largest magnitude
// of each group, the group's scale and the codes. Whatever made the values, a copy, a norm or a gated unit, ends here.
//
// Per element an instruction for the maximum (on pairs of 16 bits, as integers: magnitudes of floats are ordered like their
// bits, NaN above all), one to unpack, one for the quotient and half a conversion; the rest once per vector.
#pragma once

#include "common/alignment.h"
#include "common/fp8.cuh"
#include "common/math.cuh"
#include "common/warp.cuh"
#include "fla/fp8.h"
#include "norm/row_operand.cuh"

namespace fla::detail {

// Where the codes and scales of rows go.
struct Fp8Rows {
  RowOperand q, scale;
  int64_t scale_step = 1;  // elements between the scales of neighbouring blocks
  bool per_block = false;
};

inline Fp8Rows fp8_rows(const Tensor& q, const Tensor& scale, Fp8Scaling scaling) {
  const bool per_block = scaling == Fp8Scaling::block;
  return {row_operand(q), row_operand(scale, !per_block), per_block ? scale.stride[scale.rank - 1] : 1, per_block};
}

// The scale of a group and what its values are multiplied by: within an ulp of the quotients they stand for, in three
// instructions for both (one for each vector of 8 where groups are blocks). An ulp of fp32 is 2^-20 of the distance between
// codes. Infinite maxima give an infinite scale and the factor 0.
struct Fp8Divisor {
  float scale, reciprocal;

  explicit FLA_DEVICE Fp8Divisor(float largest) {
    scale = math::max_with_nan(largest, kFp8SmallestMaximum) * (1.0f / kLargestF8e4m3);
    reciprocal = math::reciprocal(scale);
  }
  FLA_DEVICE float quotient(float y) const { return y * reciprocal; }
};

// The larger of each half, unsigned.
FLA_DEVICE uint32_t max_of_halves(uint32_t a, uint32_t b) {
#if defined(FLA_GPU) && __CUDA_ARCH__ >= 900
  uint32_t larger;
  asm("max.u16x2 %0, %1, %2;" : "=r"(larger) : "r"(a), "r"(b));
  return larger;
#else
  const uint32_t low = (a & 0xffffu) > (b & 0xffffu) ? a & 0xffffu : b & 0xffffu;
  const uint32_t high = (a >> 16) > (b >> 16) ? a >> 16 : b >> 16;
  return low | high << 16;
#endif
}

// Magnitudes as pairs of 16 bits: the largest of eight values, then over `lanes` neighbouring lanes.
template <class T>
FLA_DEVICE uint32_t largest_pair(const Vector<T, 8>& v) {
  constexpr uint32_t kMagnitude = 0x7fff7fffu;
  const uint32_t a = max_of_halves(v.words[0] & kMagnitude, v.words[1] & kMagnitude);
  const uint32_t b = max_of_halves(v.words[2] & kMagnitude, v.words[3] & kMagnitude);
  return max_of_halves(a, b);
}
FLA_DEVICE uint32_t largest_of_lanes(uint32_t pair, int lanes) {
  FLA_UNROLL
  for (int step = kWarp / 2; step > 0; step /= 2)
    if (step < lanes) pair = max_of_halves(pair, shuffle_xor(pair, step));
  return pair;
}
template <class T>
FLA_DEVICE float largest_of_pair(uint32_t pair) {
  const uint32_t low = pair & 0xffffu, high = pair >> 16;
  return to_float(T{static_cast<uint16_t>(low > high ? low : high)});
}

// Shared slots of one maximum over a block of at most 16 warps.
struct MaximumSlots {
  alignas(16) uint32_t of_warp[16];
};
// One block barrier; every thread gets the maximum.
FLA_DEVICE uint32_t largest_of_block(uint32_t pair, MaximumSlots& slots) {
  const int thread = static_cast<int>(threadIdx.x), warps = static_cast<int>(blockDim.x) / kWarp;
  pair = largest_of_lanes(pair, kWarp);
  if (thread % kWarp == 0) slots.of_warp[thread / kWarp] = pair;
  block_barrier();
  for (int w = 0; w < warps; ++w) pair = max_of_halves(pair, slots.of_warp[w]);
  return pair;
}

inline constexpr int kBlockVectors = kFp8Block / 8;  // neighbouring lanes that hold a block of 128 values

template <class T>
FLA_DEVICE void store_quotients(f8e4m3* q, const Vector<T, 8>& y, const Fp8Divisor& by) {
  float v[8];
  unpack(y, v);
  FLA_UNROLL
  for (float& e : v) e = by.quotient(e);
  store_f8e4m3(q, v);
}

// Quantises a row, or a piece of one that starts with a block, of which this thread holds the vectors first, first + step,
// ... before `end`, those past it as zeros. `step` is the number of threads that share it: up to 32 neighbouring lanes, or
// with slots the whole block. Every thread of the warps (with slots: of the block) gets here.
template <class T, int kVectors>
FLA_DEVICE void quantize_row(const Fp8Rows& out, RowAt row, const Vector<T, 8> (&y)[kVectors], int first, int step, int end,
                             MaximumSlots* slots) {
  auto* q = static_cast<f8e4m3*>(out.q.data.data) + row.in(out.q);
  auto* scale = static_cast<float*>(out.scale.data.data) + row.in(out.scale);
  // Fewer lanes than a block has vectors share a row no longer than a block.
  if (out.per_block && step >= kBlockVectors) {
    FLA_UNROLL
    for (int i = 0; i < kVectors; ++i) {
      const int vector = first + i * step;
      const Fp8Divisor by(largest_of_pair<T>(largest_of_lanes(largest_pair(y[i]), kBlockVectors)));
      if (vector >= end) continue;
      if (vector % kBlockVectors == 0) store_float(scale + vector / kBlockVectors * out.scale_step, by.scale);
      store_quotients(q + vector * 8, y[i], by);
    }
    return;
  }
  uint32_t pair = 0;
  FLA_UNROLL
  for (int i = 0; i < kVectors; ++i) pair = max_of_halves(pair, largest_pair(y[i]));
  pair = slots ? largest_of_block(pair, *slots) : largest_of_lanes(pair, step);
  const Fp8Divisor by(largest_of_pair<T>(pair));
  if (first == 0 && end > 0) store_float(scale, by.scale);
  FLA_UNROLL
  for (int i = 0; i < kVectors; ++i) {
    const int vector = first + i * step;
    if (vector < end) store_quotients(q + vector * 8, y[i], by);
  }
}

}  // namespace fla::detail
