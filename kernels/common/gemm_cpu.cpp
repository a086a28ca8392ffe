// Products where there is no GPU, so that operators made of them run beside the emulator. Each element is summed in
// fp32 in ascending k by one accumulator, products rounded before they are added; alpha, bias and the old C come last.
#include <algorithm>
#include <vector>

#include "common/gemm.h"
#include "common/vector.cuh"

namespace fla::detail {
namespace {

constexpr int64_t kRowsAtOnce = 4, kColumnsAtOnce = 256;

// op(T) as dense fp32 rows.
std::vector<float> unpacked(const Tensor& t, bool transpose, int64_t rows, int64_t columns) {
  std::vector<float> out(static_cast<size_t>(rows * columns));
  const AnyFloat data = any_float(t);
  const int64_t stride = t.size[0] > 1 ? t.stride[0] : 0;
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t c = 0; c < columns; ++c)
      out[static_cast<size_t>(r * columns + c)] = load_float(data, transpose ? c * stride + r : r * stride + c);
  return out;
}

}  // namespace

Status multiply(const Gemm& g, Workspace, Stream) {
  const int64_t m = g.m(), n = g.n(), k = g.k();
  const std::vector<float> a = unpacked(g.a, g.transpose_a, m, k), b = unpacked(g.b, g.transpose_b, k, n);
  const AnyFloat out = any_float(g.c), bias = any_float(g.bias);
  const int64_t stride = m > 1 ? g.c.stride[0] : n;
  const float alpha = g.device_alpha ? *g.device_alpha : g.alpha;
  float sums[kRowsAtOnce][kColumnsAtOnce];
  for (int64_t row = 0; row < m; row += kRowsAtOnce) {
    const int64_t rows = std::min(kRowsAtOnce, m - row);
    for (int64_t column = 0; column < n; column += kColumnsAtOnce) {
      const int64_t columns = std::min(kColumnsAtOnce, n - column);
      for (auto& line : sums) std::fill(line, line + columns, 0.0f);
      for (int64_t i = 0; i < k; ++i) {
        const float* from = &b[static_cast<size_t>(i * n + column)];
        for (int64_t r = 0; r < rows; ++r) {
          const float factor = a[static_cast<size_t>((row + r) * k + i)];
          for (int64_t c = 0; c < columns; ++c) sums[r][c] += factor * from[c];
        }
      }
      for (int64_t r = 0; r < rows; ++r) {
        for (int64_t c = 0; c < columns; ++c) {
          const int64_t at = (row + r) * stride + column + c;
          float value = alpha * sums[r][c];
          if (g.accumulate) value += load_float(out, at);
          if (bias) value += load_float(bias, column + c);
          store_float(out, at, value);
        }
      }
    }
  }
  return {};
}

}  // namespace fla::detail
