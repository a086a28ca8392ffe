// Tensors as the library sees them: a pointer, a dtype, extents and strides. They own nothing, and the
// same type describes device memory (for kernels) and host memory (for the CPU references).
#pragma once

#include <cstddef>
#include <cstdint>
#include <initializer_list>

struct CUstream_st;

namespace fla {

// A CUDA stream (cudaStream_t); declared here so that callers without the CUDA headers can include us.
using Stream = CUstream_st*;

// f64 exists for the CPU references and for replay files; no kernel accepts it. f8e4m3 is what quantised outputs are
// stored in: 4 bits of exponent, 3 of fraction, no infinities, up to +-448 (Micikevicius et al. 2022, arXiv 2209.05433).
enum class DType : int32_t { f32 = 0, f16 = 1, bf16 = 2, f64 = 3, i32 = 4, i64 = 5, i8 = 6, u8 = 7, f8e4m3 = 8 };
inline constexpr int kDTypeCount = 9;

constexpr int64_t size_of(DType type) {
  switch (type) {
    case DType::f64:
    case DType::i64: return 8;
    case DType::f32:
    case DType::i32: return 4;
    case DType::f16:
    case DType::bf16: return 2;
    default: return 1;
  }
}

constexpr const char* name_of(DType type) {
  constexpr const char* names[kDTypeCount] = {"f32", "f16", "bf16", "f64", "i32", "i64", "i8", "u8", "f8e4m3"};
  const auto index = static_cast<uint32_t>(type);
  return index < kDTypeCount ? names[index] : "unknown";
}

constexpr bool is_float(DType type) {
  return type == DType::f32 || type == DType::f16 || type == DType::bf16 || type == DType::f64 ||
         type == DType::f8e4m3;
}

inline constexpr int kMaxRank = 5;

struct Tensor {
  void* data = nullptr;
  DType dtype = DType::f32;
  int32_t rank = 0;
  int64_t size[kMaxRank] = {};    // extents, outermost first
  int64_t stride[kMaxRank] = {};  // in elements, not bytes

  // An absent optional tensor is the default-constructed one. A tensor with a shape is present even when
  // its pointer is null, so that empty tensors (one extent 0) need no memory.
  explicit constexpr operator bool() const { return data != nullptr || rank > 0; }
};

// A row-major tensor: dense(p, DType::bf16, {tokens, channels}).
constexpr Tensor dense(void* data, DType dtype, std::initializer_list<int64_t> sizes) {
  Tensor t;
  t.data = data;
  t.dtype = dtype;
  t.rank = static_cast<int32_t>(sizes.size());
  int i = 0;
  for (int64_t extent : sizes) t.size[i++] = extent;
  int64_t step = 1;
  for (i = t.rank - 1; i >= 0; --i) {
    t.stride[i] = step;
    step *= t.size[i];
  }
  return t;
}

// Number of elements; the product is the caller's to have checked (validation does, before any launch).
constexpr int64_t count(const Tensor& t) {
  int64_t n = 1;
  for (int i = 0; i < t.rank; ++i) n *= t.size[i];
  return n;
}

// Views a tensor of rank n >= 1 as [rows, columns], which needs a unit inner stride and outer dimensions
// that step evenly (dimensions of extent 1 are free). Returns an absent tensor where that is impossible.
constexpr Tensor collapse_rows(const Tensor& t) {
  Tensor rows;
  if (t.rank < 1 || (t.stride[t.rank - 1] != 1 && t.size[t.rank - 1] > 1)) return rows;
  int64_t total = 1, step = 0;
  bool first = true;
  for (int i = t.rank - 2; i >= 0; --i) {
    if (t.size[i] != 1) {
      if (first) step = t.stride[i];
      else if (t.stride[i] != step * total) return rows;
      first = false;
    }
    total *= t.size[i];
  }
  rows.data = t.data;
  rows.dtype = t.dtype;
  rows.rank = 2;
  rows.size[0] = total;
  rows.size[1] = t.size[t.rank - 1];
  rows.stride[0] = first ? rows.size[1] : step;
  rows.stride[1] = 1;
  return rows;
}

// Scratch memory that the caller owns. `bytes` at least workspace_bytes(arguments), `data` aligned to 256
// bytes; contents before and after a call are unspecified, and calls that may overlap in time need one each.
struct Workspace {
  void* data = nullptr;
  size_t bytes = 0;
};

}  // namespace fla
