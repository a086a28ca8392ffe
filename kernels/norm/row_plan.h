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
    plan.threads = vectors <= 256 ? 128 : vectors <= 512 ? 256 : 512;
    plan.vectors = vectors <= 128 ? 1 : 2;
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
  int rows_per_stage = 1;
  int stages = 0;         // of the shared-memory ring, unit block
  int64_t parts = 1;      // blocks, and rows of partial sums: fixed by the shape alone
  bool operator==(const BackwardPlan&) const = default;
};

constexpr int64_t parts_for(int64_t rows, int64_t rows_per_step, int64_t resident) {
  const int64_t steps = (rows + rows_per_step - 1) / rows_per_step;
  // Below 8 rows a block the partial sums would outweigh the data.
  const int64_t useful = (rows + 8 * rows_per_step - 1) / (8 * rows_per_step);
  const int64_t parts = useful < resident ? useful : resident;
  return parts < 1 ? 1 : parts < steps ? parts : (steps > 0 ? steps : 1);
}

constexpr BackwardPlan plan_row_backward(int64_t rows, int64_t chunks, int64_t stage_bytes, bool bulk) {
  BackwardPlan plan;
  // Two blocks on each of an H200's 132 multiprocessors. Elsewhere the grid just runs in other waves: the count is part
  // of the result's definition.
  constexpr int64_t kResident = 264;
  if (chunks <= 128) {
    plan.unit = RowUnit::lanes;
    plan.threads = 256;
    plan.vectors = chunks <= 64 ? 2 : 4;
    plan.lanes_log2 = log2_above((chunks + plan.vectors - 1) / plan.vectors);
    plan.parts = parts_for(rows, plan.threads >> plan.lanes_log2, plan.vectors == 2 ? kResident : kResident / 2);
    return plan;
  }
  if (!bulk || chunks > 2048) {
    plan.threads = 256;
    plan.parts = parts_for(rows, 1, kResident);
    return plan;
  }
  plan.unit = RowUnit::block;
  plan.threads = chunks <= 256 ? 128 : chunks <= 512 ? 256 : chunks <= 1024 ? 512 : 1024;
  // Bulk copies under 8 KB are limited by how fast they can be issued: fetch rows in pairs.
  plan.rows_per_stage = chunks <= 256 ? 2 : 1;
  // Blocks on a multiprocessor at once: what 16 warps of 128 registers allow.
  int64_t blocks = plan.threads >= 512 ? 1 : 512 / plan.threads;
  const int64_t stage = stage_bytes * plan.rows_per_stage;
  while (blocks > 1 && (kSharedPerMultiprocessor / blocks - 2048) / stage < 2) blocks /= 2;
  const int64_t room = (kSharedPerMultiprocessor / blocks - 2048) / stage;
  if (room < 2) return {.threads = 256, .parts = parts_for(rows, 1, kResident)};
  plan.stages = static_cast<int>(room < 6 ? room : 6);
  plan.parts = parts_for(rows, plan.rows_per_stage, blocks * kResident / 2);
  return plan;
}

}  // namespace fla::detail
