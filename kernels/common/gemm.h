// Matrix products for the operators that are made of them: cuBLASLt on a GPU, a plain loop where there is none.
//
//   gemm({.a = dout, .b = weight, .c = dz}, workspace, stream)                          dz = dout W
//   gemm({.a = dout, .b = z, .c = dweight, .transpose_a = true, .accumulate = true}, ...)  dW += dout^T z
//
// Row-major operands with any row stride; 16-bit or fp32 in, fp32 accumulation always (never in the output's dtype, also
// not between the parts of a split K), one rounding at the store. Stream-ordered: no allocation, no synchronisation,
// capturable once a call of the shape has run before. Equal calls give equal bits.
#pragma once

#include <cstdint>
#include <vector>

#include "fla/status.h"
#include "fla/tensor.h"

namespace fla::detail {

// C = alpha op(A) op(B) + bias, or C += alpha op(A) op(B). M, N and K may be 0; K = 0 gives bias, zeros, or no change.
struct Gemm {
  Tensor a;     // [M, K], or [K, M] when transpose_a; f32/f16/bf16
  Tensor b;     // [K, N], or [N, K] when transpose_b; dtype of a
  Tensor c;     // [M, N]; dtype of a, or f32
  Tensor bias = {};  // [N] dtype of c, optional; not together with accumulate
  bool transpose_a = false, transpose_b = false;
  bool accumulate = false;  // c f32: into 16 bits some of the library's algorithms add the product rounded
  bool allow_tf32 = false;  // f32 operands may lose all but 10 bits of their significands on the way
  float alpha = 1.0f;
  const float* device_alpha = nullptr;  // instead of alpha: {alpha, 0, 1} in device memory, read when the product runs

  int64_t m() const { return c.size[0]; }
  int64_t n() const { return c.size[1]; }
  int64_t k() const { return a.size[transpose_a ? 0 : 1]; }
};

// A row-major matrix, a view of `columns` columns of rows that are `stride` elements apart.
inline Tensor matrix(void* data, DType dtype, int64_t rows, int64_t columns, int64_t stride) {
  Tensor t = dense(data, dtype, {rows, columns});
  t.stride[0] = stride;
  return t;
}
inline Tensor matrix(void* data, DType dtype, int64_t rows, int64_t columns) {
  return matrix(data, dtype, rows, columns, columns);
}
// Columns [first, first + n) of a matrix, and rows likewise.
inline Tensor columns_of(const Tensor& t, int64_t first, int64_t n) {
  void* at = t.data ? static_cast<char*>(t.data) + first * t.stride[1] * size_of(t.dtype) : nullptr;
  return matrix(at, t.dtype, t.size[0], n, t.stride[0]);
}
inline Tensor rows_of(const Tensor& t, int64_t first, int64_t n) {
  void* at = t.data ? static_cast<char*>(t.data) + first * t.stride[0] * size_of(t.dtype) : nullptr;
  return matrix(at, t.dtype, n, t.size[1], t.stride[0]);
}

// Whether the rows of a tensor of an operator can be those of a matrix here: bad_stride naming it where they overlap.
Status check_rows(const char* name, const Tensor&);

// What a product of an [M, N] result may use, whatever its K, dtypes and layout: room for 64 fp32 partial results, but
// 32 MiB at most. gemm() uses exactly this much, so that its choices do not depend on what else a caller keeps there.
size_t gemm_workspace_bytes(int64_t m, int64_t n);

// Refuses what the contract above excludes, rows that overlap (a row stride below the columns) and a short workspace.
Status gemm(const Gemm&, Workspace, Stream);

// While it lives, notes every product that this thread asks for: the harness times them alone, beside the operator.
class GemmRecorder {
 public:
  GemmRecorder();
  ~GemmRecorder();
  GemmRecorder(const GemmRecorder&) = delete;
  GemmRecorder& operator=(const GemmRecorder&) = delete;
  struct Call {
    Gemm gemm;
    Workspace workspace;
  };
  std::vector<Call> calls;

 private:
  GemmRecorder* outer_;
};

// The engine behind gemm(): M, N and K at least 1, the contract checked. One per build, gemm_cublaslt.cpp or gemm_cpu.cpp.
Status multiply(const Gemm&, Workspace, Stream);
inline constexpr size_t kGemmWorkspaceLimit = size_t{32} << 20;

}  // namespace fla::detail
