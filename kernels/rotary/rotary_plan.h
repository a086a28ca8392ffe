// How a rotation is cut into threads: a pure function of shapes, dtypes and strides.
//
// An item is two vectors of channels of one head of one token: of rotated channels, or of those that are
// copied. The threads of a block stand as (item, head, token). Blocks go through the heads of a token first,
// then through a chunk of tokens, then through the same chunk of the other rows of the batch, and so find the
// rows of the tables in L1 and L2: row by row, tables of fp32 would be fetched from memory again for each, which
// is 3 % of the traffic of 32 heads of 128 channels.
#pragma once

#include <algorithm>
#include <cstdint>

#include "common/alignment.h"
#include "fla/rotary.h"

namespace fla::detail {

// Measured on an H200 for D = 128: one head per thread 4093 GB/s, two 4030, four 3940; 128 threads per block.
inline constexpr int kRotaryThreads = 128;
inline constexpr int kLongestChunkLog2 = 6;

struct RotaryExtent {
  int64_t rows = 1, tokens = 0, channels = 0;  // B, T, D
  int64_t heads = 0;                           // of all tensors of the launch
  int64_t pairs = 0;                           // R
};

struct RotaryPlan {
  int vector = 1;  // channels per access
  int64_t rotated_items = 0, copied_vectors = 0, items = 0;
  int64_t threads_per_head = 1, heads_per_block = 1, tokens_per_block = 1;
  int64_t item_blocks = 0, head_blocks = 0, token_blocks = 0;  // the last chunk's idle blocks included
  int chunk_log2 = 0;                                          // token blocks of a chunk

  int64_t grid(int64_t rows) const {
    int64_t blocks = 0;
    const bool overflows = __builtin_mul_overflow(head_blocks, token_blocks, &blocks) ||
                           __builtin_mul_overflow(blocks, rows, &blocks);
    return overflows ? -1 : blocks;
  }
  friend bool operator==(const RotaryPlan&, const RotaryPlan&) = default;
};

// `vector`: what the addresses allow. `copies`: channels that are not rotated have to be written too.
inline RotaryPlan plan_rotary(const RotaryExtent& e, int64_t rotary_offset, int vector, bool copies) {
  RotaryPlan p;
  const int64_t tail = copies ? e.channels - 2 * e.pairs : 0;
  if (e.pairs % vector == 0 && rotary_offset % vector == 0 && tail % vector == 0) p.vector = vector;
  p.rotated_items = e.pairs / p.vector;
  p.copied_vectors = tail / p.vector;
  p.items = p.rotated_items + divide_up(p.copied_vectors, 2);
  p.threads_per_head = std::clamp<int64_t>(p.items, 1, kRotaryThreads);
  p.item_blocks = divide_up(p.items, p.threads_per_head);
  // As many heads as fit, evenly: 40 heads of 8 threads are three blocks of 14, not two of 16 and one of 8.
  const int64_t fit = kRotaryThreads / p.threads_per_head;
  p.head_blocks = divide_up(e.heads, fit);
  p.heads_per_block = p.head_blocks > 0 ? divide_up(e.heads, p.head_blocks) : 1;
  p.tokens_per_block = std::clamp<int64_t>(fit / p.heads_per_block, 1, std::max<int64_t>(e.tokens, 1));
  p.token_blocks = divide_up(e.tokens, p.tokens_per_block);
  while (p.chunk_log2 < kLongestChunkLog2 && (int64_t{16} << p.chunk_log2) <= p.token_blocks)
    ++p.chunk_log2;
  const int64_t chunk = int64_t{1} << p.chunk_log2;
  p.token_blocks = divide_up(p.token_blocks, chunk) * chunk;
  return p;
}

}  // namespace fla::detail
