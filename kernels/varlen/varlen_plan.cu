// varlen_plan on the device: one block counts (lengths and where each sequence's chunks begin), then a thread per token and
// per row of chunk_indices looks its sequence up. Nothing in the launches depends on the lengths.
#include "common/alignment.h"
#include "common/launch.h"
#include "common/mutate.h"
#include "common/sequence.cuh"
#include "common/warp.cuh"
#include "fla/validate.h"
#include "fla/varlen.h"

namespace fla {
namespace {

using namespace detail;

constexpr int kThreads = 256;

struct IndexOperand {
  void* data = nullptr;
  DType dtype = DType::i64;
  int64_t stride = 1;

  FLA_DEVICE void write(int64_t i, int64_t value) const {
    if (!data) return;
    if (dtype == DType::i32) {
      store(static_cast<int32_t*>(data) + i * stride, Vector<int32_t, 1>{{static_cast<uint32_t>(value)}});
    } else {
      const auto bits = static_cast<uint64_t>(value);
      store(static_cast<int64_t*>(data) + i * stride,
            Vector<int64_t, 1>{{static_cast<uint32_t>(bits), static_cast<uint32_t>(bits >> 32)}});
    }
  }
};

IndexOperand index_operand(const Tensor& t) { return {t.data, t.dtype, t.rank > 0 ? t.stride[0] : 1}; }

struct PlanArgs {
  SequenceMap sequences;
  IndexOperand position_ids, sequence_ids, lengths, max_len, chunk_indices, chunk_count;
  int64_t* chunk_starts = nullptr;  // [N + 1]
  int64_t chunk_size = 1, rows = 0, token_blocks = 0;
};

FLA_DEVICE void store_start(const PlanArgs& a, int64_t n, int64_t value) {
  IndexOperand{a.chunk_starts, DType::i64, 1}.write(n, value);
}
FLA_DEVICE int64_t chunk_start(const PlanArgs& a, int64_t n) { return load_index({a.chunk_starts, DType::i64}, n); }

// Thread i has the sum of the values of threads 0 to i. Slots: kThreads int64.
FLA_DEVICE int64_t inclusive_sum(int64_t value, int64_t* slots) {
  const int i = static_cast<int>(threadIdx.x);
  const IndexOperand out{slots, DType::i64, 1};
  for (int step = 1; step < kThreads; step *= 2) {
    out.write(i, value);
    FLA_MUTATE("varlen_plan: no barrier before a neighbour's sum", block_barrier(), void(0));
    if (i >= step) value += load_index({slots, DType::i64}, i - step);
    FLA_MUTATE("varlen_plan: no barrier after a neighbour's sum", block_barrier(), void(0));
  }
  return value;
}

FLA_KERNEL void FLA_BOUNDS(kThreads, 1) count_chunks(FLA_PARAMETERS PlanArgs a) {
  auto* slots = shared_memory<int64_t>();
  const int i = static_cast<int>(threadIdx.x);
  const IndexOperand out{slots, DType::i64, 1};
  int64_t before = 0, longest = 0;
  for (int64_t first = 0; first < a.sequences.count; first += kThreads) {
    const int64_t n = first + i;
    int64_t length = 0;
    if (n < a.sequences.count) {
      const Sequence s = a.sequences.at(n);
      length = s.end - s.begin;
      a.lengths.write(n, length);
    }
    longest = length > longest ? length : longest;
    const int64_t chunks = (length + a.chunk_size - 1) / a.chunk_size;
    const int64_t sum = inclusive_sum(chunks, slots);
    if (n < a.sequences.count) store_start(a, n, before + sum - chunks);
    out.write(i, sum);
    block_barrier();
    before += load_index({slots, DType::i64}, kThreads - 1);
    block_barrier();
  }
  out.write(i, longest);
  FLA_MUTATE("varlen_plan: thread 0 reads too early", block_barrier(), void(0));
  if (i > 0) return;
  for (int k = 1; k < FLA_MUTATE("varlen_plan: longest of one warp", kThreads, kWarp); ++k) {
    const int64_t other = load_index({slots, DType::i64}, k);
    longest = other > longest ? other : longest;
  }
  store_start(a, a.sequences.count, before);
  a.max_len.write(0, longest);
  a.chunk_count.write(0, before);
}

FLA_KERNEL void FLA_BOUNDS(kThreads, 4) write_rows(FLA_PARAMETERS PlanArgs a) {
  const int64_t block = blockIdx.x;
  if (block < a.token_blocks) {
    const int64_t t = block * kThreads + threadIdx.x;
    if (FLA_MUTATE("varlen_plan: a token past the last", t >= a.sequences.tokens, t > a.sequences.tokens)) return;
    const Sequence s = a.sequences.covering(0, t);
    const bool inside = s.begin <= t && t < s.end;
    a.position_ids.write(t, inside ? t - s.begin : 0);
    a.sequence_ids.write(t, inside ? s.index : -1);
    return;
  }
  const int64_t row = (block - a.token_blocks) * kThreads + threadIdx.x;
  if (row >= a.rows) return;
  // The last sequence that begins at or before this chunk; those without chunks begin where the next one does.
  int64_t low = 0, high = a.sequences.count;
  while (low < high) {
    const int64_t middle = low + (high - low) / 2;
    if (chunk_start(a, middle + 1) > row) high = middle;
    else low = middle + 1;
  }
  const bool exists = low < a.sequences.count;
  IndexOperand pair = a.chunk_indices;
  pair.stride = 1;
  const int64_t at = row * a.chunk_indices.stride;
  pair.write(at, exists ? low : -1);
  pair.write(at + 1, exists ? row - chunk_start(a, low) : -1);
}

}  // namespace

Status check(const VarlenPlan& a) {
  const int64_t needed = a.position_ids.size[0] / a.chunk_size + a.cu_seqlens.size[0] - 1;
  if (a.chunk_indices && a.chunk_indices.size[0] < needed)
    return error(StatusCode::shape_mismatch, "chunk_indices: C = %lld rows, any lengths need %lld",
                 static_cast<long long>(a.chunk_indices.size[0]), static_cast<long long>(needed));
  return {};
}

size_t workspace_bytes(const VarlenPlan& a) {
  return align_workspace(static_cast<size_t>(a.cu_seqlens.size[0]) * sizeof(int64_t));
}

Status run(const VarlenPlan& a, Workspace workspace, Stream stream) {
  if (Status s = validate(a); !s.ok()) return s;
  if (Status s = check_workspace(workspace, workspace_bytes(a)); !s.ok()) return s;
  PlanArgs args;
  args.sequences = sequence_map(a.cu_seqlens, 1, a.position_ids.size[0]);
  args.position_ids = index_operand(a.position_ids);
  args.sequence_ids = index_operand(a.sequence_ids);
  args.lengths = index_operand(a.lengths);
  args.max_len = index_operand(a.max_len);
  args.chunk_indices = index_operand(a.chunk_indices);
  args.chunk_count = index_operand(a.chunk_count);
  args.chunk_starts = static_cast<int64_t*>(workspace.data);
  args.chunk_size = a.chunk_size;
  args.rows = a.chunk_indices ? a.chunk_indices.size[0] : 0;
  args.token_blocks = divide_up(args.sequences.tokens, kThreads);
  if (Status s = launch<&count_chunks>(
          {.grid = 1, .block = kThreads, .shared_bytes = kThreads * sizeof(int64_t), .stream = stream}, args);
      !s.ok())
    return s;
  const int64_t blocks = args.token_blocks + divide_up(args.rows, kThreads);
  if (blocks == 0) return {};
  return launch<&write_rows>({.grid = blocks, .block = kThreads, .stream = stream}, args);
}

namespace {

// A column of host memory.
class HostIndex {
 public:
  explicit HostIndex(const Tensor& t, int64_t first = 0) : tensor_(t), first_(first) {}
  int64_t read(int64_t i) const {
    return tensor_.dtype == DType::i32 ? static_cast<const int32_t*>(tensor_.data)[at(i)]
                                       : static_cast<const int64_t*>(tensor_.data)[at(i)];
  }
  void write(int64_t i, int64_t value) const {
    if (!tensor_) return;
    if (tensor_.dtype == DType::i32) static_cast<int32_t*>(tensor_.data)[at(i)] = static_cast<int32_t>(value);
    else static_cast<int64_t*>(tensor_.data)[at(i)] = value;
  }

 private:
  int64_t at(int64_t i) const { return first_ + i * tensor_.stride[0]; }
  Tensor tensor_;
  int64_t first_;
};

Status check_offsets(const HostIndex& offsets, int64_t sequences, int64_t tokens) {
  for (int64_t n = 0; n <= sequences; ++n) {
    const int64_t value = offsets.read(n), least = n > 0 ? offsets.read(n - 1) : 0;
    if (value < least || (n == 0 && value != 0) || (n == sequences && value != tokens))
      return error(StatusCode::invalid_argument,
                   "cu_seqlens: entry %lld is %lld; the entries go from 0 to T = %lld without decreasing",
                   static_cast<long long>(n), static_cast<long long>(value), static_cast<long long>(tokens));
  }
  return {};
}

}  // namespace

Status plan_on_host(const VarlenPlan& a) {
  if (Status s = validate(a); !s.ok()) return s;
  const int64_t tokens = a.position_ids.size[0], sequences = a.cu_seqlens.size[0] - 1;
  const HostIndex offsets(a.cu_seqlens), positions(a.position_ids), ids(a.sequence_ids), lengths(a.lengths);
  const HostIndex chunk_sequences(a.chunk_indices), chunk_numbers(a.chunk_indices, 1);
  if (Status s = check_offsets(offsets, sequences, tokens); !s.ok()) return s;
  int64_t longest = 0, row = 0;
  for (int64_t n = 0; n < sequences; ++n) {
    const int64_t begin = offsets.read(n), length = offsets.read(n + 1) - begin;
    for (int64_t t = 0; t < length; ++t) {
      positions.write(begin + t, t);
      ids.write(begin + t, n);
    }
    for (int64_t c = 0; c < divide_up(length, a.chunk_size); ++c, ++row) {
      chunk_sequences.write(row, n);
      chunk_numbers.write(row, c);
    }
    lengths.write(n, length);
    longest = length > longest ? length : longest;
  }
  HostIndex(a.max_len).write(0, longest);
  HostIndex(a.chunk_count).write(0, row);
  for (; a.chunk_indices && row < a.chunk_indices.size[0]; ++row) {
    chunk_sequences.write(row, -1);
    chunk_numbers.write(row, -1);
  }
  return {};
}

}  // namespace fla
