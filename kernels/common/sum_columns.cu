// The first stage of column sums for a matrix as it lies in memory (bias gradients): a block sums 64 rows of 32 vectors of
// columns, eight rows at a time, and its eight lanes by halves. Reads the matrix once.
#include <type_traits>

#include "common/alignment.h"
#include "common/column_sum.cuh"
#include "common/launch.h"
#include "common/mutate.h"
#include "common/ptx.cuh"
#include "common/warp.cuh"

namespace fla::detail {
namespace {

constexpr int64_t kRowsPerPart = 64;
constexpr int kColumns = 32, kLanes = 8;

template <int V>
FLA_KERNEL void FLA_BOUNDS(kColumns * kLanes, 4)
    sum_rows_kernel(AnyFloat in, float* partials, int64_t rows, int64_t columns, int64_t stride, int64_t column_blocks) {
  wait_for_predecessor();
  float* sums = shared_memory<float>();
  const int64_t part = static_cast<int64_t>(blockIdx.x) / column_blocks, block = blockIdx.x % column_blocks;
  const int lane = static_cast<int>(threadIdx.x) / kColumns, slot = static_cast<int>(threadIdx.x) % kColumns;
  const int64_t column = (block * kColumns + slot) * V;
  const int64_t last = (part + 1) * kRowsPerPart < rows ? (part + 1) * kRowsPerPart : rows;
  float sum[V] = {};
  if (column < columns) {
    for (int64_t row = part * kRowsPerPart + lane;
         FLA_MUTATE("swiglu_linear.bwd: a row past the last", row < last, row <= last); row += kLanes) {
      float in_row[V];
      load_floats(in, row * stride + column, in_row);
      FLA_UNROLL
      for (int i = 0; i < V; ++i) sum[i] += in_row[i];
    }
  }
  FLA_UNROLL
  for (int half = kLanes / 2; half > 0; half /= 2) {
    if (lane >= half && lane < 2 * half) {
      FLA_UNROLL
      for (int i = 0; i < V; ++i) sums[((lane - half) * V + i) * kColumns + slot] = sum[i];
    }
    FLA_MUTATE("swiglu_linear.bwd: no barrier before the halves meet", block_barrier(), void(0));
    if (lane < half) {
      FLA_UNROLL
      for (int i = 0; i < V; ++i) sum[i] += sums[(lane * V + i) * kColumns + slot];
    }
    FLA_MUTATE("swiglu_linear.bwd: no barrier after the halves met", block_barrier(), void(0));
  }
  if (lane == 0 && column < columns) {
    FLA_UNROLL
    for (int i = 0; i < V; ++i) store_float(partials + part * columns + column + i, sum[i]);
  }
}

}  // namespace

int64_t column_partials(int64_t rows) { return divide_up(rows, kRowsPerPart); }

Status sum_columns(const Tensor& matrix, const Tensor& out, float* partials, Stream stream) {
  const int64_t rows = matrix.size[0], columns = matrix.size[1], parts = column_partials(rows);
  const auto first_stage = [&](auto width) {
    constexpr int kWidth = decltype(width)::value;
    const int64_t blocks = divide_up(columns, int64_t{kColumns} * kWidth);
    return launch<&sum_rows_kernel<kWidth>>({.grid = FLA_MUTATE("swiglu_linear.bwd: last block missing", parts * blocks,
                                                                 parts * blocks - 1),
                                             .block = kColumns * kLanes,
                                             .shared_bytes = kColumns * kLanes / 2 * kWidth * sizeof(float),
                                             .stream = stream,
                                             .dependent = true},
                                            any_float(matrix), partials, rows, columns, rows > 1 ? matrix.stride[0] : 0,
                                            blocks);
  };
  if (rows > 0 && columns > 0) {
    const bool wide =
        columns % 8 == 0 && FLA_MUTATE("swiglu_linear.bwd: vectors at any address", rows_allow(matrix, 8), true);
    const Status s = wide ? first_stage(std::integral_constant<int, 8>{}) : first_stage(std::integral_constant<int, 1>{});
    if (!s.ok()) return s;
  }
  return finish_columns(column_target(partials, out), parts, stream);
}

}  // namespace fla::detail
