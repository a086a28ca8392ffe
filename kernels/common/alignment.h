// How wide the vectors of a launch may be, from the addresses and strides of every tensor it touches.
#pragma once

#include <cstdint>

#include "fla/tensor.h"

namespace fla::detail {

// Bytes (a power of two, at most `limit`) that divide the address of the tensor and every outer stride in bytes, so
// that row starts stay aligned to it. Row lengths are the caller's to check.
inline int64_t row_alignment(const Tensor& t, int64_t limit = 16) {
  if (!t) return limit;
  uint64_t bits = reinterpret_cast<uintptr_t>(t.data) | static_cast<uint64_t>(limit);
  for (int i = 0; i + 1 < t.rank; ++i)
    if (t.size[i] > 1) bits |= static_cast<uint64_t>(t.stride[i] * size_of(t.dtype));
  return static_cast<int64_t>(bits & -bits);
}

// Whether vectors of `elements` elements of this tensor (each at most 16 bytes per access) may start at every row.
inline bool rows_allow(const Tensor& t, int64_t elements) {
  const int64_t bytes = elements * size_of(t.dtype);
  return row_alignment(t) >= (bytes < 16 ? bytes : 16);
}

template <class... Tensors>
bool all_rows_allow(int64_t elements, const Tensors&... tensors) {
  return (rows_allow(tensors, elements) && ...);
}

constexpr int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }

}  // namespace fla::detail
