// The sequences of a batch.
#pragma once

#include <algorithm>
#include <vector>

#include "reference/view.h"

namespace fla::reference {

// Sequence n occupies tokens [begin, begin + length) of batch row `row`.
struct Sequence {
  int64_t row = 0, begin = 0, length = 0;
};

// The rows, or the packed pieces of the only row. Hostile offsets are clamped into [previous, T], so that
// pieces are ordered and inside; tokens before the first offset and past the last belong to no sequence.
inline std::vector<Sequence> sequences_of(const Tensor& cu_seqlens, int64_t B, int64_t T) {
  std::vector<Sequence> pieces;
  if (!cu_seqlens) {
    for (int64_t b = 0; b < B; ++b) pieces.push_back({b, 0, T});
    return pieces;
  }
  const View<int64_t> offset(cu_seqlens);
  int64_t previous = std::clamp<int64_t>(offset(0), 0, T);
  for (int64_t n = 0; n + 1 < offset.size(0); ++n) {
    const int64_t next = std::clamp<int64_t>(offset(n + 1), previous, T);
    pieces.push_back({0, previous, next - previous});
    previous = next;
  }
  return pieces;
}

}  // namespace fla::reference
