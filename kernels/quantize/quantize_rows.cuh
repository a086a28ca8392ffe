// Rows made element by element, quantised in one pass: each is read once and stays in registers between its maxima and its
// codes. With scales per block a row is cut into pieces, two vectors for each thread of a block (the addresses cost as much
// as one); with scales per row, one block holds up to 2048 vectors.
#pragma once

#include "common/dispatch.h"
#include "common/divisor.h"
#include "common/launch.h"
#include "common/ptx.cuh"
#include "norm/row_plan.h"
#include "quantize/quantize.h"
#include "quantize/row_quantizer.cuh"

namespace fla::detail {

// x [M, G, N] and perhaps a second stream in, the values on request, codes and scales out.
struct QuantizeArgs {
  RowGrid grid = {};
  RowOperand x = {}, second = {}, values = {};
  Fp8Rows out = {};
  int32_t vectors = 0;      // of a row
  int32_t lanes_log2 = -1;  // threads that share a row, up to 32; -1: the whole block
  Divisor pieces = {};           // of a row, each of one block
};

// What makes the values: x itself. Other sources hold more.
struct CopiedRows {
  template <class T>
  struct Held {
    Vector<T, 8> x;

    FLA_DEVICE void read(const QuantizeArgs& a, RowAt row, int vector) {
      x = load<T, 8>(static_cast<const T*>(a.x.data.data) + row.in(a.x) + vector * 8);
    }
    FLA_DEVICE Vector<T, 8> values() const { return x; }
  };
};

template <class T, class Source, int kVectors>
FLA_KERNEL void FLA_BOUNDS(kVectors == 2 ? 128 : 512, kVectors == 2 ? 10 : 2)
    quantize_rows(FLA_PARAMETERS QuantizeArgs a) {
  wait_for_predecessor();
  const bool by_lanes = a.lanes_log2 >= 0;
  const int thread = static_cast<int>(threadIdx.x), threads = static_cast<int>(blockDim.x);
  const int step = by_lanes ? 1 << a.lanes_log2 : threads;
  int first = thread;
  int64_t number = blockIdx.x;
  if (by_lanes) {
    number = (number * threads + thread) >> a.lanes_log2;
    first = thread & (step - 1);
  } else if (a.out.per_block) {
    const uint32_t index = a.pieces.quotient(blockIdx.x);
    first += static_cast<int>(blockIdx.x - index * a.pieces.value()) * threads * kVectors;
    number = index;
  }
  // Lanes beyond the last row hold zeros, so that every one reaches the shuffles.
  const bool mine = number < a.grid.rows;
  const RowAt row = a.grid.at(mine ? number : 0);
  const int end = mine ? a.vectors : 0;
  typename Source::template Held<T> held[kVectors] = {};
  FLA_UNROLL
  for (int i = 0; i < kVectors; ++i)
    if (first + i * step < end) held[i].read(a, row, first + i * step);
  Vector<T, 8> y[kVectors];
  FLA_UNROLL
  for (int i = 0; i < kVectors; ++i) {
    const int vector = first + i * step;
    y[i] = held[i].values();
    if (a.values.data && vector < end)
      store(static_cast<T*>(a.values.data.data) + row.in(a.values) + vector * 8, y[i]);
  }
  quantize_row(a.out, row, y, first, step, end, by_lanes ? nullptr : shared_memory<MaximumSlots>());
}

// The longest row that stays in registers, in vectors of 8 values.
inline constexpr int64_t kMostQuantizedVectors = 4 * 512;

// Takes the call where the rows are 16-bit, aligned and short enough; `taken` says whether. What the source reads beside x
// has been seen to by the caller. With scales per row the heads of x, values and q must be one row.
template <class Source>
Status launch_quantize_rows(QuantizeArgs a, DType dtype, int64_t vectors, Stream stream) {
  a.vectors = static_cast<int32_t>(vectors);
  auto go = [&](auto kernel_vectors, int64_t grid, int threads) {
    const Launch shape{.grid = grid, .block = threads, .shared_bytes = sizeof(MaximumSlots), .stream = stream,
                       .dependent = a.grid.rows * vectors < (int64_t{1} << 18)};
    constexpr int kVectors = decltype(kernel_vectors)::value;
    return dtype == DType::f16 ? launch<&quantize_rows<f16, Source, kVectors>>(shape, a)
                               : launch<&quantize_rows<bf16, Source, kVectors>>(shape, a);
  };
  constexpr std::integral_constant<int, 2> two{};
  constexpr std::integral_constant<int, 4> four{};
  if (vectors <= 2 * kWarp) {
    a.lanes_log2 = log2_above(divide_up(vectors, 2));
    return go(two, divide_up(a.grid.rows << a.lanes_log2, 128), 128);
  }
  if (a.out.per_block) {
    const int64_t pieces = divide_up(vectors, 2 * 128);
    a.pieces = Divisor(pieces);
    int64_t grid = 0;
    if (__builtin_mul_overflow(pieces, a.grid.rows, &grid)) grid = -1;
    return go(two, grid, 128);
  }
  if (vectors <= 2 * 128) return go(two, a.grid.rows, 128);
  return go(four, a.grid.rows, threads_for_row(divide_up(vectors, 4), 512));
}

}  // namespace fla::detail
