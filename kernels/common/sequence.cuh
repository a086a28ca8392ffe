// Tensors of tokens, and the sequences that their rows are cut into: the one way in which kernels read cu_seqlens.
#pragma once

#include "common/gpu.h"
#include "common/vector.cuh"
#include "common/workspace.h"
#include "fla/status.h"

namespace fla::detail {

// [B, T, D] with free strides.
struct TokenOperand {
  AnyFloat data;
  int64_t stride_b = 0, stride_t = 0, stride_d = 0;

  FLA_HOST_DEVICE explicit operator bool() const { return static_cast<bool>(data); }
  FLA_DEVICE int64_t offset(int64_t b, int64_t t, int64_t d) const {
    return b * stride_b + t * stride_t + d * stride_d;
  }
  FLA_DEVICE float read(int64_t b, int64_t t, int64_t d) const { return load_float(data, offset(b, t, d)); }
  FLA_DEVICE void write(int64_t b, int64_t t, int64_t d, float value) const {
    store_float(data, offset(b, t, d), value);
  }
  // For kernels that know the dtype and that channels are contiguous.
  template <class T>
  FLA_DEVICE T* address(uint32_t b, int64_t t, uint32_t d) const {
    return static_cast<T*>(data.data) + (b * stride_b + t * stride_t + d);
  }
};

// A tensor of rank 2 leaves the batch out.
inline TokenOperand token_operand(const Tensor& t) {
  if (t.rank < 2) return {};
  return {any_float(t), t.rank > 2 ? t.stride[0] : 0, t.stride[t.rank - 2], t.stride[t.rank - 1]};
}

// Tokens [begin, end) of a row. index == count: past the last sequence, an empty one at the row's end.
struct Sequence {
  int64_t index = 0, begin = 0, end = 0;
};

// The rows themselves, or pieces of the only row. Offsets are data: each is clamped as it is used, so that no
// content, sorted or not, leads outside the row or keeps a search from ending.
struct SequenceMap {
  AnyIndex offsets;
  int64_t stride = 0, count = 0, tokens = 0;

  FLA_DEVICE int64_t clamped(int64_t n, int64_t low) const {
    const int64_t value = load_index(offsets, n * stride);
    return value < low ? low : value > tokens ? tokens : value;
  }
  FLA_DEVICE Sequence at(int64_t n) const {
    if (!offsets) return {n, 0, tokens};
    const int64_t begin = clamped(n, 0);
    return {n, begin, clamped(n + 1, begin)};
  }
  // The first sequence from number `from` on that ends after token t of row b. It contains t unless it begins
  // later.
  FLA_DEVICE Sequence covering(int64_t b, int64_t t, int64_t from = 0) const {
    if (!offsets) return at(b);
    int64_t low = from, high = count;
    while (low < high) {
      const int64_t middle = low + (high - low) / 2;
      if (load_index(offsets, (middle + 1) * stride) > t) high = middle;
      else low = middle + 1;
    }
    return low < count ? at(low) : Sequence{count, tokens, tokens};
  }
  FLA_DEVICE int64_t row_of(int64_t n) const { return offsets ? 0 : n; }
};

inline SequenceMap sequence_map(const Tensor& cu_seqlens, int64_t rows, int64_t tokens) {
  if (!cu_seqlens) return {{}, 0, rows, tokens};
  return {any_index(cu_seqlens), cu_seqlens.stride[0], cu_seqlens.size[0] - 1, tokens};
}

// Packed sequences lie in one row.
inline Status check_packed(const Tensor& cu_seqlens, int64_t rows) {
  if (!cu_seqlens || rows == 1) return {};
  return error(StatusCode::shape_mismatch, "cu_seqlens: B = %lld rows, packed sequences lie in one",
               static_cast<long long>(rows));
}

}  // namespace fla::detail
