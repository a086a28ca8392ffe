// Which unit of the machine owns a row: a pure function of the row length and the dtypes, so that a row's bits do not
// depend on how many rows there are. Measured on an H200 (performance.md 2.4); the mapping that is best for bandwidth
// is also best for one row.
#pragma once

#include <cstdint>

namespace fla::detail {

inline constexpr int64_t kSharedPerMultiprocessor = 227 * 1024;

enum class RowUnit : int32_t { lanes, block, streamed };

struct RowPlan {
  RowUnit unit = RowUnit::streamed;
  int threads = 128;            // per block
  int lanes_log2 = 5;           // threads per row, unit lanes
  int vectors = 2;              // 16-byte vectors each thread keeps in registers
  int64_t shared_vectors = 0;   // vectors at the row's end that stay in shared memory
  bool operator==(const RowPlan&) const = default;
};

constexpr int log2_above(int64_t n) {
  int log2 = 0;
  while ((int64_t{1} << log2) < n) ++log2;
  return log2;
}

// Forward: one row per unit, read once. `vectors` counts the row in 16-byte vectors of x.
constexpr RowPlan plan_row_forward(int64_t vectors, bool has_residual) {
  RowPlan plan;
  if (vectors <= 64) {
    plan.unit = RowUnit::lanes;
    // 16 vectors (128 bf16, a head): one each on 16 lanes beat two each on 8 by 1.5 %.
    plan.vectors = vectors > 8 && vectors <= 16 ? 1 : 2;
    plan.lanes_log2 = log2_above((vectors + plan.vectors - 1) / plan.vectors);
    return plan;
  }
  plan.unit = RowUnit::block;
  if (vectors <= 1024) {
    plan.threads = vectors <= 256 ? 128 : 256;
    plan.vectors = vectors <= 128 ? 1 : vectors <= 512 ? 2 : 4;
    return plan;
  }
  plan.threads = 512;
  plan.vectors = 4;
  if (vectors <= 2048) return plan;
  // Beyond 32 KB the row's end waits in shared memory, up to 96 KB of it with a second block on the multiprocessor;
  // no cluster is needed (clusters measured 10-40 % slower).
  plan.shared_vectors = vectors - plan.vectors * 512;
  if (has_residual || plan.shared_vectors * 16 > kSharedPerMultiprocessor - 1024) plan = {.threads = 512};
  return plan;
}

// Backward: persistent blocks that keep column sums; `chunks` counts the row in pieces of 16 bytes of the widest
// stream, `stage_bytes` is one row of every stream that is read.
struct BackwardPlan {
  RowUnit unit = RowUnit::streamed;
  int threads = 128;
  int lanes_log2 = 5;
  int vectors = 2;        // chunks per thread
  int64_t parts = 1;      // blocks, and rows of partial sums: fixed by the shape alone
  bool operator==(const BackwardPlan&) const = default;
};

// Blocks for `rows` rows, `rows_per_step` at a time, `resident` at most.
constexpr int64_t parts_for(int64_t rows, int64_t rows_per_step, int64_t resident) {
  // Below 8 rows a block the partial sums would outweigh the data.
  const int64_t rows_per_part = rows_per_step > 8 ? rows_per_step : 8;
  const int64_t useful = (rows + rows_per_part - 1) / rows_per_part;
  const int64_t parts = useful < resident ? useful : resident;
  return parts < 1 ? 1 : parts;
}

// The most blocks of the ring kernel on a multiprocessor: what its registers allow.
constexpr int ring_blocks(int threads) { return threads >= 512 ? 1 : threads == 256 ? 2 : threads == 128 ? 5 : 10; }

// `bulk`: evenly spaced rows that bulk copies can fetch. `four_streams`: there is a residual gradient.
constexpr BackwardPlan plan_row_backward(int64_t rows, int64_t chunks, int64_t row_bytes, bool bulk, bool four_streams) {
  BackwardPlan plan;
  // Of an H200. Elsewhere the grid just runs in other waves: the count is part of the result's definition.
  constexpr int64_t kMultiprocessors = 132;
  if (chunks <= (bulk ? 64 : 128)) {
    plan.unit = RowUnit::lanes;
    plan.threads = 256;
    plan.vectors = chunks <= 64 ? 2 : 4;
    plan.lanes_log2 = log2_above((chunks + plan.vectors - 1) / plan.vectors);
    plan.parts = parts_for(rows, plan.threads >> plan.lanes_log2, plan.vectors == 2 ? 2 * kMultiprocessors : kMultiprocessors);
    return plan;
  }
  // Two rows in flight are the ring's least and its best.
  if (!bulk || chunks > 2048 || 2 * row_bytes > kSharedPerMultiprocessor - 2048)
    return {.threads = 256, .parts = parts_for(rows, 1, 2 * kMultiprocessors)};
  plan.unit = RowUnit::block;
  plan.threads = chunks <= 128 ? 64 : chunks <= 256 ? 128 : chunks <= 512 ? 256 : chunks <= 1024 ? 512 : 1024;
  int64_t blocks = ring_blocks(plan.threads);
  if (four_streams && plan.threads <= 128) blocks -= blocks / 5;
  plan.parts = parts_for(rows, 1, blocks * kMultiprocessors);
  return plan;
}

}  // namespace fla::detail
