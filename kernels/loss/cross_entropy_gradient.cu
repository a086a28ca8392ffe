// Cross entropy, backward from the saved lse: element-wise, one 16-byte vector per thread, read once and written once,
// in place or not. Rows whose gradient is zero by definition are not read.
#include "loss/cross_entropy.cuh"

namespace fla::detail {
namespace {

constexpr int kThreads = 256;

template <class T, int kWidth, bool kCapped>
FLA_KERNEL void FLA_BOUNDS(kThreads, 6) gradient_kernel(FLA_PARAMETERS LogitArgs a, uint32_t blocks_per_row) {
  const uint32_t row32 = blockIdx.x / blocks_per_row;
  const auto block = static_cast<int>(blockIdx.x - row32 * blocks_per_row);
  const int64_t row = row32;
  const int thread = static_cast<int>(threadIdx.x);
  const T* logits = static_cast<const T*>(a.logits) + row * a.logits_stride;
  T* dlogits = static_cast<T*>(a.dlogits) + row * a.dlogits_stride;
  int head = 0, vectors = a.columns, scalar = -1;
  if constexpr (kWidth > 1) {
    const RowSpan<T> span(logits, a.columns);
    head = span.head;
    vectors = span.vectors;
    if (block == 0) scalar = span.scalar_column(thread, a.columns);
  }
  const int vector = block * kThreads + thread, column = head + vector * kWidth;
  const bool inside = vector < vectors;
  const Label label = read_label(a, row);
  const bool zero = label.state == LabelState::ignored || label.state == LabelState::invalid;
  Vector<T, kWidth> packed = inside && !zero ? load<T, kWidth>(logits + column) : zero_vector<T, kWidth>();
  const float lse = load_float(a.lse + row * a.lse_stride);
  const float factor = upstream_factor(a, row), weight = probability_weight(a, lse);
  auto gradient = [&](float logit, int at) {
    return zero ? 0.0f : factor * LogitChain<kCapped>::gradient(a, logit, lse, weight, at == label.column);
  };
  if (inside) {
    float values[kWidth];
    unpack(packed, values);
    FLA_UNROLL
    for (int e = 0; e < kWidth; ++e) values[e] = gradient(values[e], column + e);
    store_floats(dlogits + column, values);
  }
  if (scalar >= 0) store_float(dlogits + scalar, gradient(zero ? 0.0f : load_float(logits + scalar), scalar));
}

}  // namespace

Status cross_entropy_gradient(const LogitArgs& a, DType dtype, Stream stream) {
  return dispatch_float(dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    constexpr int kWidth = 16 / sizeof(T);
    const bool wide = rows_in_step(a, dtype);
    const int64_t blocks = divide_up(divide_up(a.columns, wide ? kWidth : 1), kThreads);
    int64_t grid = 0;
    if (__builtin_mul_overflow(blocks, a.rows, &grid)) grid = -1;
    const Launch shape{.grid = grid, .block = kThreads, .stream = stream};
    const auto per_row = static_cast<uint32_t>(blocks);
    const bool capped = a.cap != 0.0f;
    if (wide)
      return capped ? launch<&gradient_kernel<T, kWidth, true>>(shape, a, per_row)
                    : launch<&gradient_kernel<T, kWidth, false>>(shape, a, per_row);
    return capped ? launch<&gradient_kernel<T, 1, true>>(shape, a, per_row)
                  : launch<&gradient_kernel<T, 1, false>>(shape, a, per_row);
  });
}

}  // namespace fla::detail
