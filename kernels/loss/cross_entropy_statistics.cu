// Cross entropy, forward: read-only, one block of 512 per row, four 16-byte vectors in flight per thread (97 % of
// read-only bandwidth on an H200; 1024 threads lose 8 %). One special-function operation per logit; a soft-cap adds two.
#include "loss/cross_entropy.cuh"

namespace fla::detail {
namespace {

template <class T, bool kCapped, bool kSum>
FLA_KERNEL void FLA_BOUNDS(kLossThreads, 2) statistics_kernel(FLA_PARAMETERS LogitArgs a) {
  constexpr int kWidth = 16 / sizeof(T), kBatch = 4;
  auto* shared = shared_memory<LossShared>();
  const int thread = static_cast<int>(threadIdx.x);
  const int64_t row = blockIdx.x;
  const Label label = read_label(a, row);
  if (label.state == LabelState::ignored || label.state == LabelState::invalid) {
    if (thread == 0) store_skipped_row(a, row, label.state);
    return;  // the whole block, before any barrier
  }
  const T* logits = static_cast<const T*>(a.logits) + row * a.logits_stride;
  const RowSpan<T> span(logits, a.columns);
  const T* vectors = logits + span.head;
  float z_label = 0.0f;
  if (thread == 0 && label.column >= 0) z_label = LogitChain<kCapped>::z(a, load_float(logits + label.column));

  LogitStatistics<kCapped, kSum> seen;
  int v = thread;
  for (; v + (kBatch - 1) * kLossThreads < span.vectors; v += kBatch * kLossThreads) {
    Vector<T, kWidth> batch[kBatch];
    FLA_UNROLL
    for (int i = 0; i < kBatch; ++i) batch[i] = load<T, kWidth>(vectors + (v + i * kLossThreads) * kWidth);
    float values[kBatch * kWidth];
    FLA_UNROLL
    for (int i = 0; i < kBatch; ++i) {
      float part[kWidth];
      unpack(batch[i], part);
      FLA_UNROLL
      for (int e = 0; e < kWidth; ++e) values[i * kWidth + e] = part[e];
    }
    seen.add(a, values);
  }
  for (; v < span.vectors; v += kLossThreads) {
    float values[kWidth];
    load_floats(vectors + v * kWidth, values);
    seen.add(a, values);
  }
  if (const int column = span.scalar_column(thread, a.columns); column >= 0) {
    float value[1] = {load_float(logits + column)};
    seen.add(a, value);
  }
  const SoftmaxState total = block_merge(seen.softmax, shared->softmax);
  float z_sum = 0.0f;
  if constexpr (kSum) z_sum = block_sum(seen.sum, shared->sum);
  if (thread == 0) store_loss(a, row, log_sum_exp(total), z_label, z_sum);
}

constexpr int kCountThreads = 1024;

FLA_DEVICE float count_labels(const LogitArgs& a, BlockSlots<1>& slots) {
  // Counts up to 2^24 are exact in fp32 per thread and in the tree.
  float mine = 0.0f;
  FLA_UNROLL_BY(8)
  for (int64_t row = threadIdx.x; row < a.rows; row += kCountThreads)
    mine += load_index(a.labels, row * a.label_stride) != a.ignore_index ? 1.0f : 0.0f;
  return block_sum(mine, slots);
}

FLA_KERNEL void FLA_BOUNDS(kCountThreads, 1) count_kernel(FLA_PARAMETERS LogitArgs a, float* divisor) {
  const float count = count_labels(a, *shared_memory<BlockSlots<1>>());
  if (threadIdx.x == 0) store_float(divisor, count);
}

FLA_KERNEL void FLA_BOUNDS(kCountThreads, 1)
    reduce_kernel(FLA_PARAMETERS LossReduction r, FLA_PARAMETERS LogitArgs a) {
  wait_for_predecessor();
  auto* slots = shared_memory<BlockSlots<2>>();
  float sums[2] = {};
  FLA_UNROLL_BY(4)
  for (int64_t row = threadIdx.x; row < a.rows; row += kCountThreads) {
    sums[0] += load_float(r.loss_rows + row);
    if (r.z_loss_rows) sums[1] += load_float(r.z_loss_rows + row);
  }
  block_sum(sums, *slots);
  float divisor = 1.0f;
  if (r.mean) divisor = r.normalizer ? load_float(r.normalizer) : count_labels(a, *reinterpret_cast<BlockSlots<1>*>(slots + 1));
  if (threadIdx.x != 0) return;
  const bool empty = r.mean && !r.normalizer && divisor == 0.0f;
  const float nothing = r.empty_is_nan ? NAN : 0.0f;
  store_float(r.loss, empty ? nothing : sums[0] / divisor);
  if (r.z_loss) store_float(r.z_loss, empty ? nothing : sums[1] / divisor);
}

}  // namespace

Status cross_entropy_statistics(const LogitArgs& a, DType dtype, Stream stream) {
  const Launch shape{.grid = a.rows, .block = kLossThreads, .shared_bytes = sizeof(LossShared), .stream = stream};
  return dispatch_float(dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    if (a.cap != 0.0f) return launch<&statistics_kernel<T, true, true>>(shape, a);
    if (a.smoothing != 0.0f) return launch<&statistics_kernel<T, false, true>>(shape, a);
    return launch<&statistics_kernel<T, false, false>>(shape, a);
  });
}

Status count_valid_labels(const LogitArgs& a, float* divisor, Stream stream) {
  return launch<&count_kernel>({.block = kCountThreads, .shared_bytes = sizeof(BlockSlots<1>), .stream = stream}, a, divisor);
}

Status reduce_losses(const LossReduction& r, const LogitArgs& a, Stream stream) {
  return launch<&reduce_kernel>({.block = kCountThreads,
                                 .shared_bytes = sizeof(BlockSlots<2>) + sizeof(BlockSlots<1>),
                                 .stream = stream,
                                 .dependent = true},
                                r, a);
}

}  // namespace fla::detail
