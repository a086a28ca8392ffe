// Cross entropy, forward: read-only, one block of 256 per row, four 16-byte vectors in flight per thread (97 % of
// read-only bandwidth on an H200; 1024 threads lose 8 %). One special-function operation per logit; a soft-cap adds two.
#include "common/mutate.h"
#include "loss/cross_entropy.cuh"

namespace fla::detail {
namespace {

constexpr int kThreads = 256;

template <class T, int kBatch>
struct Batch {
  static constexpr int kWidth = 16 / sizeof(T);
  Vector<T, kWidth> held[kBatch];

  // All loads are issued before the first is used, in the last, partial batch too.
  FLA_DEVICE void read(const T* vectors, int first, int end) {
    FLA_UNROLL
    for (int i = 0; i < kBatch; ++i) {
      const int v = first + i * kThreads;
      if (v < end) held[i] = load<T, kWidth>(vectors + v * kWidth);
    }
  }

  template <class Statistics>
  FLA_DEVICE void add_to(Statistics& seen, const LogitArgs& a, int first, int end) const {
    FLA_UNROLL
    for (int i = 0; i < kBatch; i += 2) {
      float low[kWidth], high[kWidth];
      if (first + (i + 1) * kThreads < end) {
        unpack(held[i], low);
        unpack(held[i + 1], high);
        float both[2 * kWidth];
        FLA_UNROLL
        for (int e = 0; e < kWidth; ++e) {
          both[e] = low[e];
          both[kWidth + e] = high[e];
        }
        seen.add(a, both);
      } else if (const int v = first + i * kThreads;
                 FLA_MUTATE("cross_entropy.fwd: a vector past the last", v < end, v <= end)) {
        unpack(held[i], low);
        seen.add(a, low);
      }
    }
  }
};

FLA_DEVICE void store_entropy(const LogitArgs& a, int64_t row, float entropy) {
  store_float(a.entropy_rows + row * a.entropy_stride, entropy);
}

// kEntropy: with the entropy, and without smoothing.
template <class T, bool kPlain, bool kEntropy>
FLA_KERNEL void FLA_BOUNDS(kThreads, kPlain ? 5 : 4) statistics_kernel(FLA_PARAMETERS LogitArgs a) {
  constexpr int kBatch = 4;
  auto* shared = shared_memory<LossShared>();
  const int thread = static_cast<int>(threadIdx.x);
  const int64_t row = blockIdx.x;
  // Survives: it differs from 2^31 logits on, which only the nightly tier on a GPU has.
  const T* logits = static_cast<const T*>(a.logits) +
                    FLA_MUTATE("cross_entropy.fwd: row offset of 32 bits", row * a.logits_stride,
                               static_cast<int32_t>(row * a.logits_stride));
  const RowSpan<T> span(logits, a.columns);
  const T* vectors = logits + span.head;
  // The first logits are on their way while the label, on which the rest depends, is fetched.
  Batch<T, kBatch> batch;
  batch.read(vectors, thread, span.vectors);
  const Label label = read_label(a, row);
  const bool skipped = label.state == LabelState::ignored || label.state == LabelState::invalid;
  if (FLA_MUTATE("cross_entropy.fwd: a thread returns before a barrier", skipped, skipped && thread == 0)) {
    if (thread == 0) store_skipped_row(a, row, label.state);
    if (kEntropy && thread == 0) store_entropy(a, row, label.state == LabelState::invalid ? NAN : 0.0f);
    return;  // the whole block, before any barrier
  }
  float z_label = 0.0f;
  if (thread == 0 && label.column >= 0) z_label = LogitChain<kPlain>::z(a, load_float(logits + label.column));

  LogitStatistics<kPlain, kEntropy> seen;
  for (int first = thread; first < span.vectors; first += kBatch * kThreads) {
    if (first != thread) batch.read(vectors, first, span.vectors);
    batch.add_to(seen, a, first, span.vectors);
  }
  if (const int column = span.scalar_column(thread, a.columns); column >= 0) {
    float value[1] = {load_float(logits + column)};
    seen.add(a, value);
  }
  const SoftmaxState total = block_merge(seen.softmax, shared->softmax);
  float z_sum = 0.0f;
  if constexpr (kEntropy) {
    // log sum - mean of (t - max) ln 2: nothing here is as large as the log-sum-exp.
    const float weighted = block_sum(seen.weighted_from(total.max), shared->sum);
    if (thread == 0) store_entropy(a, row, math::log(total.sum) - math::kLn2 * weighted / total.sum);
  } else if constexpr (!kPlain) {
    z_sum = block_sum(seen.sum, shared->sum) * seen.z_unit(a);
  }
  const float lse = row_log_sum_exp<kPlain>(a, logits, total, *shared);
  if (FLA_MUTATE("cross_entropy.fwd: every warp stores", thread == 0, thread % kWarp == 0))
    store_loss(a, row, lse, z_label, z_sum);
}

constexpr int kCountThreads = 1024;

FLA_DEVICE float count_labels(const LogitArgs& a, BlockSlots<1>& slots) {
  if (!a.labels) return static_cast<float>(a.rows);
  // Counts up to 2^24 are exact in fp32 per thread and in the tree.
  float mine = 0.0f;
  FLA_UNROLL_BY(8)
  for (int64_t row = threadIdx.x;
       FLA_MUTATE("cross_entropy.fwd: a label past the last", row < a.rows, row <= a.rows); row += kCountThreads)
    mine += load_index(a.labels, row * a.label_stride) != a.ignore_index ? 1.0f : 0.0f;
  return block_sum<kCountThreads / kWarp>(mine, slots);
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
    const float weight = r.weights ? load_float(r.weights + row * r.weight_stride) : 1.0f;
    sums[0] += weight * load_float(r.loss_rows + row);
    if (r.z_loss_rows) sums[1] += weight * load_float(r.z_loss_rows + row);
  }
  block_sum<kCountThreads / kWarp>(sums, *slots);
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
  const Launch shape{.grid = a.rows, .block = kThreads, .shared_bytes = sizeof(LossShared), .stream = stream};
  return dispatch_float(dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    if (a.entropy_rows) return launch<&statistics_kernel<T, false, true>>(shape, a);
    return chain_is_plain(a) ? launch<&statistics_kernel<T, true, false>>(shape, a)
                             : launch<&statistics_kernel<T, false, false>>(shape, a);
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
