// Rms norms whose output leaves as fp8 codes with scales, in one pass: the row stays in registers until its norm is known,
// then as the stored values until their maximum is. The kernels mirror those of row_norm_forward.cuh, with the same threads
// and the same sums for the same row, so that the values are theirs to the bit; one set of them takes plain, weighted,
// gated and joined rows, where what is absent is a number that changes nothing.
#pragma once

#include "norm/row_norm_forward.cuh"
#include "quantize/row_quantizer.cuh"

namespace fla::detail {

struct NormFp8Args {
  ForwardArgs norm;
  Fp8Rows out;
  // Of a plain norm -0: adding it keeps even the sign of a zero, as Form::plain does. +0 for the others.
  float no_bias = -0.0f;
};

// Weights of T or f32 of a thread's vectors, as they come.
template <class T, int kCount>
struct HeldWeights {
  Vector<float, 8> held[kCount];  // of T: in the first half of the words

  FLA_DEVICE void read(const ForwardArgs& a, uint32_t group, int first, int step, int end) {
    const int64_t offset = group * a.weight_stride;
    if (a.weight.dtype == DType::f32) {
      FLA_UNROLL
      for (int i = 0; i < kCount; ++i)
        if (first + i * step < end)
          held[i] = load<float, 8>(static_cast<const float*>(a.weight.data) + offset + (first + i * step) * 8);
      return;
    }
    FLA_UNROLL
    for (int i = 0; i < kCount; ++i) {
      if (first + i * step >= end) continue;
      const auto v = load<T, 8>(static_cast<const T*>(a.weight.data) + offset + (first + i * step) * 8);
      FLA_UNROLL
      for (int w = 0; w < 4; ++w) held[i].words[w] = v.words[w];
    }
  }
  FLA_DEVICE void values(const ForwardArgs& a, int i, float (&out)[8]) const {
    if (a.weight.dtype == DType::f32) return unpack(held[i], out);
    Vector<T, 8> v;
    FLA_UNROLL
    for (int w = 0; w < 4; ++w) v.words[w] = held[i].words[w];
    unpack(v, out);
  }
};

// What the norm makes of a row, as stored, in place of what was held; the vectors past the end become zeros.
template <class T, class S, int kVectors, bool kGated, int kCount>
FLA_DEVICE void finish_row(const NormFp8Args& p, const RowInRegisters<T, S, kVectors>& held,
                           HeldWeights<T, kCount>& weights, const HeldGate<T, kVectors, kGated>& gate, RowAt row,
                           float rstd, int first, int step, int end, Vector<T, 8> (&y)[kVectors]) {
  const ForwardArgs& a = p.norm;
  FLA_UNROLL
  for (int i = 0; i < kVectors; ++i) {
    const int vector = first + i * step;
    y[i] = zero_vector<T, 8>();
    if (vector >= end) continue;
    if constexpr (kCount < kVectors) {
      if (a.weight) weights.read(a, row.g, vector, step, end);
    }
    float u[8], w[8] = {1.0f, 1.0f, 1.0f, 1.0f, 1.0f, 1.0f, 1.0f, 1.0f};
    unpack(held.held[i], u);
    if constexpr (RowInRegisters<T, S, kVectors>::kJoined) {
      if (a.residual_out.data)
        store_floats(static_cast<T*>(a.residual_out.data.data) + row.in(a.residual_out) + vector * 8, u);
    }
    if (a.weight) weights.values(a, kCount < kVectors ? 0 : i, w);
    if (a.weight_offset != 0) {  // adding 0 would change nothing: at most the sign of a zero, which +0 follows then
      FLA_UNROLL
      for (float& e : w) e += a.weight_offset;
    }
    FLA_UNROLL
    for (int e = 0; e < 8; ++e) u[e] = fmaf(u[e] * rstd, w[e], p.no_bias);
    if constexpr (kGated) {
      if (a.gate.data) {
        float g[8];
        unpack(gate.held[i], g);
        FLA_UNROLL
        for (int e = 0; e < 8; ++e) u[e] *= gate_value<true>(g[e], a.swish);
      }
    }
    y[i] = pack<T, 8>(u);
    if (a.y.data) store(static_cast<T*>(a.y.data.data) + row.in(a.y) + vector * 8, y[i]);
  }
}

template <int kVectors>
inline constexpr int kWeightsHeld = kVectors <= 2 ? kVectors : 1;

// Rows that a group of lanes takes, as in row_norm_forward.cuh: weights and addresses are found once for them.
template <class S, int kVectors>
inline constexpr int kFp8Turns = kVectors == 1 && std::is_same_v<S, NoSecond> ? 2 : 1;

template <class T, class S, int kVectors>
FLA_KERNEL void FLA_BOUNDS(128, (kVectors == 1 ? 8 : kVectors == 2 ? 6 : 4))
    row_norm_fp8_lanes(FLA_PARAMETERS NormFp8Args p) {
  constexpr bool kGated = !RowInRegisters<T, S, kVectors>::kJoined;
  constexpr uint32_t kTurns = kFp8Turns<S, kVectors>;
  wait_for_predecessor();
  const ForwardArgs& a = p.norm;
  const int lanes = 1 << a.lanes_log2, lane = static_cast<int>(threadIdx.x) & (lanes - 1), vectors = a.columns / 8;
  const RowAt first = a.grid.at((static_cast<int64_t>(blockIdx.x) * 128 + threadIdx.x) >> a.lanes_log2);
  RowAt rows[kTurns];
  int end[kTurns];
  RowInRegisters<T, S, kVectors> held[kTurns];
  HeldGate<T, kVectors, kGated> gate[kTurns];
  HeldWeights<T, kWeightsHeld<kVectors>> weights;
  FLA_UNROLL
  for (uint32_t i = 0; i < kTurns; ++i) {
    const uint32_t m = first.m * a.turns + i;
    const bool mine = i < a.turns && m < a.height;  // the others hold zeros
    rows[i] = {mine ? m : 0, first.g};
    end[i] = mine ? vectors : 0;
    held[i].read(a, rows[i], lane, lanes, end[i]);
    if (kGated && a.gate.data) gate[i].read(a, rows[i], lane, lanes, end[i]);
  }
  if (kWeightsHeld<kVectors> == kVectors && a.weight) weights.read(a, first.g, lane, lanes, vectors);
  float sums[kTurns];
  FLA_UNROLL
  for (uint32_t i = 0; i < kTurns; ++i) sums[i] = held[i].sum_of_squares();
  warp_sum(sums, lanes);
  FLA_UNROLL
  for (uint32_t i = 0; i < kTurns; ++i) {
    const float rstd = math::rsqrt(fmaf(sums[i], a.share, a.eps));
    Vector<T, 8> y[kVectors];
    finish_row<T, S, kVectors, kGated>(p, held[i], weights, gate[i], rows[i], rstd, lane, lanes, end[i], y);
    quantize_row(p.out, rows[i], y, lane, lanes, end[i], nullptr);
  }
}

struct NormFp8Shared {
  BlockSlots<1> sum;
  MaximumSlots maximum;
};

// Blocks that shall fit a multiprocessor: what registers allow.
template <int kVectors, bool kGated>
inline constexpr int kResidentFp8Blocks = kVectors == 1 ? 6 : kVectors == 2 ? 4 : kGated ? 1 : 2;

template <class T, class S, int kVectors, bool kGated>
FLA_KERNEL void FLA_BOUNDS(kMostThreads<kVectors>, (kResidentFp8Blocks<kVectors, kGated>))
    row_norm_fp8_block(FLA_PARAMETERS NormFp8Args p) {
  wait_for_predecessor();
  const ForwardArgs& a = p.norm;
  auto* shared = shared_memory<NormFp8Shared>();
  const int thread = static_cast<int>(threadIdx.x), threads = static_cast<int>(blockDim.x), end = a.columns / 8;
  const RowAt row = a.grid.at(blockIdx.x);
  RowInRegisters<T, S, kVectors> held;
  HeldGate<T, kVectors, kGated> gate;
  HeldWeights<T, kWeightsHeld<kVectors>> weights;
  held.read(a, row, thread, threads, end);
  if (kGated && a.gate.data) gate.read(a, row, thread, threads, end);
  if (kWeightsHeld<kVectors> == kVectors && a.weight) weights.read(a, row.g, thread, threads, end);
  const float sum = block_sum<kMostThreads<kVectors> / kWarp>(held.sum_of_squares(), shared->sum);
  Vector<T, 8> y[kVectors];
  const float rstd = math::rsqrt(fmaf(sum, a.share, a.eps));
  finish_row<T, S, kVectors, kGated>(p, held, weights, gate, row, rstd, thread, threads, end, y);
  quantize_row(p.out, row, y, thread, threads, end, &shared->maximum);
}

template <class T, class S>
Status launch_norm_fp8(NormFp8Args& p, const RowPlan& plan, Stream stream) {
  const int64_t rows = p.norm.grid.rows;
  const bool dependent = rows * p.norm.columns * static_cast<int64_t>(sizeof(T)) < kDependentBytes;
  auto go = [&](auto vectors) {
    constexpr int kVectors = decltype(vectors)::value;
    if constexpr (kVectors <= 2 || std::is_same_v<S, NoSecond>) {  // plan_row_forward gives joined lanes no more
      if (plan.unit == RowUnit::lanes) {
        const int64_t grid = lane_blocks(p.norm, plan, kFp8Turns<S, kVectors>);
        return launch<&row_norm_fp8_lanes<T, S, kVectors>>(
            {.grid = grid, .block = 128, .stream = stream, .dependent = dependent}, p);
      }
    }
    const Launch shape{.grid = rows, .block = plan.threads, .shared_bytes = sizeof(NormFp8Shared), .stream = stream,
                       .dependent = dependent};
    if constexpr (kVectors > 2 && std::is_same_v<S, NoSecond>) {  // nor fewer vectors of a gated row
      if (p.norm.gate.data) return launch<&row_norm_fp8_block<T, S, kVectors, true>>(shape, p);
    }
    return launch<&row_norm_fp8_block<T, S, kVectors, false>>(shape, p);
  };
  if (plan.vectors == 1) return go(std::integral_constant<int, 1>{});
  if (plan.vectors == 2) return go(std::integral_constant<int, 2>{});
  return go(std::integral_constant<int, 4>{});
}

}  // namespace fla::detail
