// The plan of packed sequences. Whole numbers only: the same for every scalar.
#pragma once

#include "fla/varlen.h"
#include "reference/sequences.h"

namespace fla::reference {

template <class S>
void evaluate(const VarlenPlan& a) {
  const View<int64_t> positions(a.position_ids), ids(a.sequence_ids), lengths(a.lengths), max_len(a.max_len),
      chunks(a.chunk_indices), count(a.chunk_count);
  const int64_t T = positions.size(0);
  for (int64_t t = 0; t < T; ++t) {  // of tokens in no sequence; the others are overwritten
    positions(t) = 0;
    if (ids) ids(t) = -1;
  }
  for (int64_t i = 0; chunks && i < chunks.size(0); ++i) chunks(i, 0) = chunks(i, 1) = -1;
  int64_t longest = 0, filled = 0, n = 0;
  for (const Sequence& s : sequences_of(a.cu_seqlens, 1, T)) {
    for (int64_t t = 0; t < s.length; ++t) {
      positions(s.begin + t) = t;
      if (ids) ids(s.begin + t) = n;
      if (t % a.chunk_size > 0) continue;
      if (chunks) {
        chunks(filled, 0) = n;
        chunks(filled, 1) = t / a.chunk_size;
      }
      ++filled;
    }
    if (lengths) lengths(n) = s.length;
    longest = std::max(longest, s.length);
    ++n;
  }
  if (max_len) max_len(0) = longest;
  if (count) count(0) = filled;
}

}  // namespace fla::reference
