// Cross entropy, backward from the saved lse: element-wise, a few 16-byte vectors per thread, read once and written once,
// in place or not.
#include "loss/cross_entropy.cuh"

namespace fla::detail {
namespace {

constexpr int kThreads = 256;
// Several vectors a thread: what a row's gradients share is prepared once for all of them, which outweighs the 3 % that
// one vector a thread is faster as a plain copy.
constexpr int kVectors = 4;

template <class T, int kWidth, bool kPlain>
FLA_KERNEL void FLA_BOUNDS(kThreads, 4) gradient_kernel(FLA_PARAMETERS LogitArgs a, uint32_t blocks_per_row) {
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
  // Loaded before the label is known: waiting for it would double the latency of every row to save reading some.
  const int first = block * kThreads * kVectors + thread;
  Vector<T, kWidth> held[kVectors];
  FLA_UNROLL
  for (int i = 0; i < kVectors; ++i) {
    const int vector = first + i * kThreads;
    if (vector < vectors) held[i] = load<T, kWidth>(logits + head + vector * kWidth);
  }
  const Label label = read_label(a, row);
  const bool zero = label.state == LabelState::ignored || label.state == LabelState::invalid;
  const float lse = load_float(a.lse + row * a.lse_stride);
  auto gradient = row_gradient<T, kPlain>(a, label, lse, upstream_factor(a, row));
  if constexpr (!kPlain) gradient.add_entropy(a, row);
  FLA_UNROLL
  for (int i = 0; i < kVectors; ++i) {
    const int vector = first + i * kThreads, column = head + vector * kWidth;
    if (vector < vectors) {
      float values[kWidth];
      if (zero) {
        store(dlogits + column, zero_vector<T, kWidth>());
        continue;
      }
      unpack(held[i], values);
      gradient.apply(a, column, values);
      store_floats(dlogits + column, values);
    }
  }
  if (scalar >= 0) {
    float value[1] = {0.0f};
    if (!zero) {
      load_floats(logits + scalar, value);
      gradient.apply(a, scalar, value);
    }
    store_floats(dlogits + scalar, value);
  }
}

}  // namespace

Status cross_entropy_gradient(const LogitArgs& a, DType dtype, Stream stream) {
  return dispatch_float(dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    constexpr int kWidth = 16 / sizeof(T);
    const bool wide = rows_in_step(a, dtype);
    const int64_t blocks = divide_up(divide_up(a.columns, wide ? kWidth : 1), kThreads * kVectors);
    int64_t grid = 0;
    if (__builtin_mul_overflow(blocks, a.rows, &grid)) grid = -1;
    const Launch shape{.grid = grid, .block = kThreads, .stream = stream};
    const auto per_row = static_cast<uint32_t>(blocks);
    const bool plain = chain_is_plain(a);
    if (wide)
      return plain ? launch<&gradient_kernel<T, kWidth, true>>(shape, a, per_row)
                   : launch<&gradient_kernel<T, kWidth, false>>(shape, a, per_row);
    return launch<&gradient_kernel<T, 1, false>>(shape, a, per_row);
  });
}

}  // namespace fla::detail
