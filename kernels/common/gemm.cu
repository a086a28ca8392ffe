// What every product has in common, whoever computes it: the contract, and products without terms.
#include "common/gemm.h"

#include <algorithm>

#include "common/alignment.h"
#include "common/launch.h"
#include "common/vector.cuh"
#include "common/workspace.h"

namespace fla::detail {
namespace {

constexpr int kFillThreads = 256;
constexpr int64_t kFillBlocks = 1 << 16;

// Rows of bias, or zeros, and a dense fp32 product where there is one.
FLA_KERNEL void FLA_BOUNDS(kFillThreads, 4)
    fill_rows_kernel(AnyFloat out, AnyFloat bias, const float* product, int64_t rows, int64_t columns, int64_t stride) {
  const int64_t step = static_cast<int64_t>(gridDim.x) * kFillThreads;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * kFillThreads + threadIdx.x; i < rows * columns; i += step) {
    const int64_t row = i / columns, column = i % columns;
    const float start = bias ? load_float(bias, column) : 0.0f;
    store_float(out, row * stride + column, product ? start + product[i] : start);
  }
}

Status fill_rows(const Gemm& g, const float* product, Stream stream) {
  const int64_t m = g.m(), n = g.n();
  return launch<&fill_rows_kernel>(
      {.grid = std::min(divide_up(m * n, kFillThreads), kFillBlocks), .block = kFillThreads, .stream = stream},
      any_float(g.c), any_float(g.bias), product, m, n, m > 1 ? g.c.stride[0] : n);
}

// Where operands are not made of 16-byte vectors, cuBLASLt has kernels for products of one or two rows that round the product
// before they add the bias (seen in 13.0 on an H200, K >= 200). There it gets no bias, and an fp32 result in the workspace.
bool adds_bias_itself(const Gemm& g, size_t product_bytes, size_t workspace) {
  constexpr int64_t kVector = 8;
  return g.bias && size_of(g.c.dtype) == 2 && !all_rows_allow(kVector, g.a, g.b, g.c) && 2 * product_bytes <= workspace;
}

thread_local GemmRecorder* recorder = nullptr;

bool is_matrix(const Tensor& t, int64_t rows, int64_t columns) {
  return t.rank == 2 && t.size[0] == rows && t.size[1] == columns && (columns <= 1 || t.stride[1] == 1) &&
         (rows <= 1 || t.stride[0] >= columns);
}

Status check_contract(const Gemm& g) {
  if (g.c.rank != 2 || g.a.rank != 2) return error(StatusCode::shape_mismatch, "gemm: operands are matrices");
  const int64_t m = g.m(), n = g.n(), k = g.k();
  if (!is_matrix(g.a, g.transpose_a ? k : m, g.transpose_a ? m : k) ||
      !is_matrix(g.b, g.transpose_b ? n : k, g.transpose_b ? k : n) || !is_matrix(g.c, m, n))
    return error(StatusCode::shape_mismatch, "gemm: shapes or strides do not fit a %lld x %lld x %lld product",
                 static_cast<long long>(m), static_cast<long long>(n), static_cast<long long>(k));
  if (g.a.dtype != g.b.dtype || !(g.c.dtype == g.a.dtype || g.c.dtype == DType::f32))
    return error(StatusCode::unsupported_dtype, "gemm: %s x %s to %s", name_of(g.a.dtype), name_of(g.b.dtype),
                 name_of(g.c.dtype));
  if (g.bias && (g.accumulate || g.bias.rank != 1 || g.bias.size[0] != n || g.bias.dtype != g.c.dtype))
    return error(StatusCode::unsupported_combination, "gemm: bias has another size or dtype, or c accumulates");
  return {};
}

}  // namespace

GemmRecorder::GemmRecorder() : outer_(recorder) { recorder = this; }
GemmRecorder::~GemmRecorder() { recorder = outer_; }

Status check_rows(const char* name, const Tensor& t) {
  if (!t || t.size[0] <= 1 || t.stride[0] >= t.size[1]) return {};
  return error(StatusCode::bad_stride, "%s: row stride %lld is below its %lld columns", name,
               static_cast<long long>(t.stride[0]), static_cast<long long>(t.size[1]));
}

size_t gemm_workspace_bytes(int64_t m, int64_t n) {
#if defined(FLA_GPU)
  constexpr int64_t kPartials = 64;
  const int64_t limit = static_cast<int64_t>(kGemmWorkspaceLimit / (kPartials * sizeof(float)));
  if (m <= 0 || n <= 0) return 0;
  if (m >= limit || n >= limit || m * n >= limit) return kGemmWorkspaceLimit;
  return align_workspace(static_cast<size_t>(m * n * kPartials) * sizeof(float));
#else
  (void)m, (void)n;
  return 0;
#endif
}

Status gemm(const Gemm& g, Workspace workspace, Stream stream) {
  if (Status s = check_contract(g); !s.ok()) return s;
  const int64_t m = g.m(), n = g.n(), k = g.k();
  const size_t needed = gemm_workspace_bytes(m, n);
  if (Status s = check_workspace(workspace, needed); !s.ok()) return s;
  if (m == 0 || n == 0) return {};
  if (recorder) recorder->calls.push_back({g, workspace});
  if (k == 0) return g.accumulate ? Status{} : fill_rows(g, nullptr, stream);
  const size_t product_bytes = align_workspace(static_cast<size_t>(m * n) * sizeof(float));
  if (!adds_bias_itself(g, product_bytes, needed)) return multiply(g, {workspace.data, needed}, stream);
  Gemm product = g;
  product.bias = {};
  product.c = matrix(workspace.data, DType::f32, m, n);
  if (Status s = multiply(product, {static_cast<char*>(workspace.data) + product_bytes, needed - product_bytes}, stream); !s.ok())
    return s;
  return fill_rows(g, static_cast<const float*>(workspace.data), stream);
}

}  // namespace fla::detail
