// quantize_fp8: 2 bytes read and 1 written an element of 16 bits. 16-bit rows that fit registers, and all with scales per
// block, are read once (quantize_rows.cuh); others twice, the second time from L2 where a row is short enough.
#include "common/workspace.h"
#include "fla/validate.h"
#include "quantize/quantize_rows.cuh"

namespace fla {

using namespace detail;

namespace {

// Any dtype, alignment and length. Sixteen lanes hold a block, eight values each; a block of threads walks along the row,
// with scales per row along all heads of the token.
struct StreamedArgs {
  QuantizeArgs rows;
  int32_t columns = 0;
  uint32_t heads = 1;    // that share a scale
  bool aligned = false;  // vectors of eight may be used
};

constexpr int kStreamedThreads = 256;
constexpr int64_t kLongestFp8Row = 0x7fffffff - 65536;

FLA_DEVICE void read_eight(const StreamedArgs& a, int64_t row, int column, float (&v)[8]) {
  if (a.aligned) {
    if (column < a.columns) return load_floats(a.rows.x.data, row + column, v);
  }
  FLA_UNROLL
  for (int e = 0; e < 8; ++e) {
    const bool inside = !a.aligned && column + e < a.columns;
    v[e] = inside ? load_float(a.rows.x.data, row + column + e) : 0.0f;
  }
}

FLA_DEVICE float largest_of_eight(const float (&v)[8]) {
  float largest = 0.0f;
  FLA_UNROLL
  for (const float e : v) largest = math::max_with_nan(largest, fabsf(e));
  return largest;
}
FLA_DEVICE float largest_float_of_lanes(float largest, int lanes) {
  for (int step = lanes / 2; step > 0; step /= 2) largest = math::max_with_nan(largest, shuffle_xor(largest, step));
  return largest;
}

FLA_DEVICE void write_eight(const StreamedArgs& a, f8e4m3* q, int column, const float (&v)[8], const Fp8Divisor& by) {
  float quotients[8];
  FLA_UNROLL
  for (int e = 0; e < 8; ++e) quotients[e] = by.quotient(v[e]);
  if (a.aligned) {
    if (column < a.columns) store_f8e4m3(q + column, quotients);
    return;
  }
  for (int e = 0; e < 8; ++e)
    if (column + e < a.columns) store_f8e4m3(q + column + e, quotients[e]);
}

FLA_KERNEL void FLA_BOUNDS(kStreamedThreads, 4) quantize_streamed(FLA_PARAMETERS StreamedArgs a) {
  wait_for_predecessor();
  auto* slots = shared_memory<float>();
  const Fp8Rows& out = a.rows.out;
  const int thread = static_cast<int>(threadIdx.x), column = thread * 8;
  constexpr int kStep = kStreamedThreads * 8;
  RowAt row = a.rows.grid.at(blockIdx.x);
  auto* scale = static_cast<float*>(out.scale.data.data) + row.in(out.scale);
  float v[8];
  if (out.per_block) {
    auto* q = static_cast<f8e4m3*>(out.q.data.data) + row.in(out.q);
    for (int start = 0; start < a.columns; start += kStep) {  // every lane as often
      read_eight(a, row.in(a.rows.x), start + column, v);
      const Fp8Divisor by(largest_float_of_lanes(largest_of_eight(v), kBlockVectors));
      if (thread % kBlockVectors == 0 && start + column < a.columns)
        store_float(scale + (start + column) / kFp8Block * out.scale_step, by.scale);
      write_eight(a, q, start + column, v, by);
    }
    return;
  }
  float largest = 0.0f;
  for (row.g = 0; row.g < a.heads; ++row.g)
    for (int c = column; c < a.columns; c += kStep) {
      read_eight(a, row.in(a.rows.x), c, v);
      largest = math::max_with_nan(largest, largest_of_eight(v));
    }
  largest = largest_float_of_lanes(largest, kWarp);
  if (thread % kWarp == 0) slots[thread / kWarp] = largest;
  block_barrier();
  for (int w = 0; w < kStreamedThreads / kWarp; ++w) largest = math::max_with_nan(largest, slots[w]);
  const Fp8Divisor by(largest);
  if (thread == 0) store_float(scale, by.scale);
  for (row.g = 0; row.g < a.heads; ++row.g) {
    auto* q = static_cast<f8e4m3*>(out.q.data.data) + row.in(out.q);
    for (int c = column; c < a.columns; c += kStep) {
      read_eight(a, row.in(a.rows.x), c, v);
      write_eight(a, q, c, v, by);
    }
  }
}

}  // namespace

Status detail::check_fp8_rows(const char* name, const Tensor& rows, Fp8Scaling scaling) {
  const auto [m, g, n] = row_extent(rows);
  if (g > 0 && m > kMostRows / g) return error(StatusCode::unsupported_shape, "%s: 2^32 rows or more", name);
  if (n < 1) return error(StatusCode::unsupported_shape, "%s: rows of N = 0 elements", name);
  if (n > kLongestFp8Row) return error(StatusCode::unsupported_shape, "%s: rows of 2^31 elements", name);
  if (scaling == Fp8Scaling::block && g > 1 && n % kFp8Block != 0)
    return error(StatusCode::unsupported_shape, "%s: blocks of %d columns would lie in two heads", name,
                 static_cast<int>(kFp8Block));
  return {};
}

Status check(const QuantizeFp8Forward& a) {
  return first_error({check_row_strides({{"x", a.x}, {"q", a.q}, {"scale", a.scale}}), check_fp8_rows("x", a.x, a.scaling)});
}

size_t workspace_bytes(const QuantizeFp8Forward&) { return 0; }

Status run(const QuantizeFp8Forward& a, Workspace, Stream stream) {
  if (Status s = validate(a); !s.ok()) return s;
  auto [m, g, n] = row_extent(a.x);
  if (m == 0) return {};
  QuantizeArgs rows{.x = row_operand(a.x), .out = fp8_rows(a.q, a.scale, a.scaling)};
  Fp8Rows& out = rows.out;
  const bool aligned = codes_allow_vectors(a.q) && rows_allow(a.x, 8);
  uint32_t heads = 1;
  if (!out.per_block) {  // the heads are one row where they lie side by side
    if (g > 1 && rows.x.stride_g == n && out.q.stride_g == n && n <= kLongestFp8Row / g) n *= g;
    else heads = static_cast<uint32_t>(g);
    g = 1;
  }
  if (g == 0) return {};
  rows.grid = {m * g, static_cast<uint32_t>(g)};
  const int64_t vectors = n / 8;
  if (aligned && heads == 1 && size_of(a.x.dtype) == 2 && (out.per_block || vectors <= kMostQuantizedVectors))
    return launch_quantize_rows<CopiedRows>(rows, a.x.dtype, vectors, stream);
  return launch<&quantize_streamed>(
      {.grid = rows.grid.rows, .block = kStreamedThreads, .shared_bytes = 32 * sizeof(float), .stream = stream},
      StreamedArgs{rows, static_cast<int32_t>(n), heads, aligned});
}

}  // namespace fla
