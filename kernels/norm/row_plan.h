// Which unit of the machine owns a row: a pure function of the row length and the dtypes, so that a row's bits do not
// depend on how many rows there are. Measured on an H200 (performance.md 2.4); the mapping that is best for bandwidth
// is also best for one row.
#pragma once

#include <cstdint>
#include <numeric>

namespace fla::detail {

inline constexpr int64_t kSharedPerMultiprocessor = 227 * 1024;

// Rows are counted in 32 bits: a division of 64 is a call, and a wide number for every row takes registers. Persistent lanes
// look up to three of their steps beyond the last row, for which there is room.
inline constexpr int64_t kMostRows = 0xfff00000, kMostRowStep = ((int64_t{1} << 32) - kMostRows) / 4;

enum class RowUnit : int32_t { lanes, block, streamed };

struct RowPlan {
  RowUnit unit = RowUnit::streamed;
  int threads = 128;            // per block
  int lanes_log2 = 5;           // threads per row, unit lanes
  int vectors = 2;              // 16-byte vectors each thread keeps in registers
  int64_t shared_vectors = 0;   // vectors at the row's end that stay in shared memory
  bool operator==(const RowPlan&) const = default;
};

// Threads of a block that walks over one row: a power of two, no more than its vectors.
constexpr int threads_for_row(int64_t vectors, int most) {
  int threads = 32;
  while (threads < most && threads < vectors) threads *= 2;
  return threads;
}

constexpr int log2_above(int64_t n) {
  int log2 = 0;
  while ((int64_t{1} << log2) < n) ++log2;
  return log2;
}

// Rows of more than 32 KB: threads of a block, and the vectors that each keeps in registers.
inline constexpr int kLongRowThreads = 512, kLongRowVectors = 4;

// Forward: one row per unit, read once. `vectors` counts the row in 16-byte vectors of x; `joined`: a second stream
// joins x before the statistic; plain: an rms norm with nothing besides.
constexpr RowPlan plan_row_forward(int64_t vectors, bool joined, bool plain) {
  RowPlan plan;
  if (vectors <= (joined || plain ? 64 : 128)) {
    plan.unit = RowUnit::lanes;
    // 16 vectors (128 bf16, a head): one each on 16 lanes beat two each on 8 by 1.5 %.
    plan.vectors = vectors > 64 ? 4 : vectors > 8 && vectors <= 16 ? 1 : 2;
    plan.lanes_log2 = log2_above((vectors + plan.vectors - 1) / plan.vectors);
    return plan;
  }
  plan.unit = RowUnit::block;
  if (vectors <= 1024) {
    const bool lean = joined || plain;
    plan.threads = vectors <= (lean ? 256 : 512) ? 128 : 256;
    plan.vectors = !lean || vectors > 512 ? 4 : vectors > 128 ? 2 : 1;
    return plan;
  }
  plan.threads = kLongRowThreads;
  plan.vectors = kLongRowVectors;
  constexpr int64_t kKept = kLongRowThreads * kLongRowVectors;
  if (vectors <= kKept) return plan;
  // Beyond 32 KB the row's end waits in shared memory, up to 96 KB of it with a second block on the multiprocessor;
  // no cluster is needed (clusters measured 10-40 % slower).
  plan.shared_vectors = vectors - kKept;
  if (joined || plan.shared_vectors * 16 > kSharedPerMultiprocessor - 1024) plan = {.threads = 512};
  return plan;
}

// Backward: persistent blocks that keep column sums.
struct BackwardShape {
  int64_t rows = 0;
  int64_t chunks = 0;            // of a row: pieces of 16 bytes of its widest stream
  int64_t width = 8;             // elements of a chunk
  int64_t row_bytes = 0;         // of one row of every stream that is read
  int64_t parameter_groups = 1;  // row r has parameters r % parameter_groups
  bool bulk = false;             // rows are evenly spaced and may be fetched by bulk copies
  bool centred = false, gated = false;
  bool third = false;            // a gate or a residual gradient is read too
  bool bias = false;             // there is one, and so perhaps a second column sum
};

struct BackwardPlan {
  RowUnit unit = RowUnit::streamed;
  int threads = 128;
  int lanes_log2 = 5;
  int vectors = 2;            // chunks per thread
  int stages = 0;             // of the shared-memory ring, unit block
  int cluster = 1;            // blocks that share a row
  int64_t slice_chunks = 0;   // of each
  int64_t gate_bytes = 0;     // of shared memory of each, for what a gate made and for the weights
  int64_t parts = 1;          // that share the rows: fixed by the shape alone
  int64_t sums_per_part = 1;  // rows of partial sums that one stores
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

// Blocks of the ring kernel on a multiprocessor: what registers allow. Light: one column sum, neither centred nor gated.
constexpr int ring_blocks(int threads, bool light) {
  return threads >= 512 ? 1 : threads == 256 ? 2 : threads == 128 ? (light ? 5 : 4) : light ? 10 : 8;
}

// The nearest multiple that is not above `parts`, or one.
constexpr int64_t in_multiples(int64_t parts, int64_t multiple) {
  return parts < multiple ? multiple : parts - parts % multiple;
}

// Two kernels: one block per row, and blocks of eight warps by 256 columns of all groups for the column sums, six of
// them for each of an H200's 132 multiprocessors.
constexpr BackwardPlan streamed_row_backward(int64_t rows_of_group, int64_t all_columns) {
  const int64_t column_blocks = all_columns > 256 ? (all_columns + 255) / 256 : 1, wanted = (792 + column_blocks - 1) / column_blocks;
  const int64_t useful = (rows_of_group + 63) / 64;
  BackwardPlan plan;
  plan.parts = wanted < useful ? wanted : useful < 1 ? 1 : useful;
  return plan;
}

constexpr BackwardPlan plan_row_backward(const BackwardShape& shape) {
  BackwardPlan plan;
  // Of an H200. Elsewhere the grid just runs in other waves: the count is part of the result's definition.
  constexpr int64_t kMultiprocessors = 132;
  const int64_t chunks = shape.chunks, groups = shape.parameter_groups;
  const bool plain = !shape.centred && !shape.gated;
  if (chunks <= (shape.gated || shape.bulk ? 64 : 128)) {
    plan.unit = RowUnit::lanes;
    plan.threads = 256;
    // More state leaves registers for fewer chunks of the row.
    plan.vectors = shape.gated && chunks <= 32 ? 1 : chunks <= 64 ? 2 : 4;
    plan.lanes_log2 = log2_above((chunks + plan.vectors - 1) / plan.vectors);
    const int64_t slots = plan.threads >> plan.lanes_log2;
    const int64_t blocks = plan.vectors == (shape.gated ? 1 : 2) ? 2 : 1;
    plan.parts = in_multiples(parts_for(shape.rows, slots, blocks * kMultiprocessors), groups / std::gcd(groups, slots));
    plan.sums_per_part = slots % groups == 0 ? groups : slots;
    if (plan.parts * slots <= kMostRowStep) return plan;
    return streamed_row_backward(shape.rows / groups, chunks * 8 * groups);  // thousands of groups of parameters
  }
  const BackwardPlan streamed = streamed_row_backward(shape.rows / groups, chunks * 8 * groups);
  // A block has registers for the column sums of 1024 chunks: longer rows are split over a cluster.
  while (plan.cluster < 8 && chunks > 1024 * plan.cluster) plan.cluster *= 2;
  // Even, so that a slice starts at 16 bytes in a stream of half the width too.
  const int64_t slice = plan.cluster == 1 ? chunks : (chunks + 2 * plan.cluster - 1) / (2 * plan.cluster) * 2;
  if (!shape.bulk || slice > 1024) return streamed;
  plan.unit = RowUnit::block;
  plan.slice_chunks = slice;
  // Short slices leave registers for what a gate makes of one chunk.
  plan.vectors = shape.gated && slice <= 128 ? 1 : 2;
  plan.threads = slice <= 128 ? 128 / plan.vectors : slice <= 256 ? 128 : slice <= 512 ? 256 : 512;
  if (shape.gated && plan.vectors > 1) plan.gate_bytes = (2 * plan.threads * plan.vectors + slice) * shape.width * 4;
  int64_t blocks = ring_blocks(plan.threads, plain && !shape.bias);
  if (shape.third && plan.threads <= 128) blocks -= blocks / 5;
  const int64_t stage = shape.row_bytes / chunks * slice;
  const auto stages_of = [&](int64_t resident) {
    return (kSharedPerMultiprocessor / resident - 2048 - plan.gate_bytes) / stage;
  };
  while (blocks > 1 && stages_of(blocks) < 2) blocks /= 2;
  const int64_t room = stages_of(blocks), wanted = plan.threads == 512 ? 4 : 2;
  if (room < 2) return streamed;
  plan.stages = static_cast<int>(room < wanted ? room : wanted);
  // Clusters live within a group of 16 or 18 multiprocessors: 66, 30 and 15 fit. One more would be a second wave.
  const int64_t resident = plan.cluster == 1 ? kMultiprocessors : plan.cluster == 2 ? 66 : 120 / plan.cluster;
  plan.parts = in_multiples(parts_for(shape.rows, 1, blocks * resident), groups);
  return plan;
}

}  // namespace fla::detail
