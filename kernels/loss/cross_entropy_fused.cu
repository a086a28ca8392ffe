// Cross entropy, loss and gradient in one pass: every logit read once, its gradient written once. A row stays on chip
// between its statistics and its gradient: the first vectors in registers, the rest in shared memory, fetched by one
// bulk copy. One block per row and no cluster: 96 % of an in-place copy on an H200 up to V = 151936, where reading the
// row twice gives 66 % and clusters 70 %. Longer rows run the two kernels of the separate forms.
#include "loss/cross_entropy.cuh"

namespace fla::detail {
namespace {

constexpr int64_t kSharedRoom = 227 * 1024 - 4096;

// Writes the gradient of one vector; the label's bracket differs from the others'.
template <class T, bool kCapped>
FLA_DEVICE void write_gradient(const LogitArgs& a, const Vector<T, 16 / sizeof(T)>& packed, T* out, int column,
                               int label_column, float lse, float weight, float factor) {
  constexpr int kWidth = 16 / sizeof(T);
  float values[kWidth];
  unpack(packed, values);
  FLA_UNROLL
  for (int e = 0; e < kWidth; ++e)
    values[e] = factor * LogitChain<kCapped>::gradient(a, values[e], lse, weight, column + e == label_column);
  store_floats(out, values);
}

template <class T, int kVectors, bool kCapped>
FLA_KERNEL void FLA_BOUNDS(kLossThreads, kVectors == 4 ? 2 : 1) fused_kernel(FLA_PARAMETERS LogitArgs a) {
  constexpr int kWidth = 16 / sizeof(T);
  using Packed = Vector<T, kWidth>;
  auto* shared = reinterpret_cast<LossShared*>(shared_memory<unsigned char>());
  T* tail = reinterpret_cast<T*>(shared_memory<unsigned char>() + (sizeof(LossShared) + 127) / 128 * 128);
  const int thread = static_cast<int>(threadIdx.x);
  const int64_t row = blockIdx.x;
  const T* logits = static_cast<const T*>(a.logits) + row * a.logits_stride;
  T* dlogits = static_cast<T*>(a.dlogits) + row * a.dlogits_stride;
  const RowSpan<T> span(logits, a.columns);
  const int scalar = span.scalar_column(thread, a.columns);
  const Label label = read_label(a, row);
  if (label.state == LabelState::ignored || label.state == LabelState::invalid) {
    for (int v = thread; v < span.vectors; v += kLossThreads) store(dlogits + span.column(v), zero_vector<T, kWidth>());
    if (scalar >= 0) store_float(dlogits + scalar, 0.0f);
    if (thread == 0) store_skipped_row(a, row, label.state);
    return;  // the whole block, before any barrier
  }
  const int kept = span.vectors < kVectors * kLossThreads ? span.vectors : kVectors * kLossThreads;
  const int waiting = span.vectors - kept;
  if (thread == 0 && waiting > 0) {
    const auto bytes = static_cast<uint32_t>(waiting) * 16;
    barrier_init(&shared->barrier);
    barrier_expect(&shared->barrier, bytes);
    bulk_load(tail, logits + span.column(kept), bytes, &shared->barrier);
    bulk_commit(&shared->barrier);
  }
  Packed held[kVectors];
  FLA_UNROLL
  for (int i = 0; i < kVectors; ++i) {
    const int v = thread + i * kLossThreads;
    if (v < kept) held[i] = load<T, kWidth>(logits + span.column(v));
  }
  const float scalar_logit = scalar >= 0 ? load_float(logits + scalar) : 0.0f;
  // Read before any thread overwrites the row.
  float z_label = 0.0f;
  if (thread == 0 && label.column >= 0) z_label = LogitChain<kCapped>::z(a, load_float(logits + label.column));
  const float factor = upstream_factor(a, row);

  LogitStatistics<kCapped, kCapped> seen;
  float z_sum = 0.0f;
  auto add = [&](const Packed& packed) {
    float values[kWidth];
    unpack(packed, values);
    if constexpr (!kCapped) {
      if (a.smoothing != 0.0f) {
        FLA_UNROLL
        for (int e = 0; e < kWidth; ++e) z_sum += values[e] * a.scale;
      }
    }
    seen.add(a, values);
  };
  FLA_UNROLL
  for (int i = 0; i < kVectors; ++i)
    if (thread + i * kLossThreads < kept) add(held[i]);
  if (waiting > 0) {
    block_barrier();  // the transaction barrier is initialised
    barrier_wait(&shared->barrier, 0);
    FLA_UNROLL_BY(4)
    for (int v = thread; v < waiting; v += kLossThreads) add(load<T, kWidth>(tail + v * kWidth));
  }
  if (scalar >= 0) {
    float value[1] = {scalar_logit};
    if (!kCapped && a.smoothing != 0.0f) z_sum += scalar_logit * a.scale;
    seen.add(a, value);
  }
  const float lse = log_sum_exp(block_merge(seen.softmax, shared->softmax));
  if (a.smoothing != 0.0f) z_sum = block_sum(kCapped ? seen.sum : z_sum, shared->sum);
  if (thread == 0) store_loss(a, row, lse, z_label, z_sum);

  const float weight = probability_weight(a, lse);
  FLA_UNROLL_BY(2)
  for (int v = thread; v < waiting; v += kLossThreads) {
    const int column = span.column(kept + v);
    write_gradient<T, kCapped>(a, load<T, kWidth>(tail + v * kWidth), dlogits + column, column, label.column, lse, weight, factor);
  }
  FLA_UNROLL
  for (int i = 0; i < kVectors; ++i) {
    const int v = thread + i * kLossThreads;
    if (v < kept)
      write_gradient<T, kCapped>(a, held[i], dlogits + span.column(v), span.column(v), label.column, lse, weight, factor);
  }
  if (scalar >= 0)
    store_float(dlogits + scalar,
                factor * LogitChain<kCapped>::gradient(a, scalar_logit, lse, weight, scalar == label.column));
}

struct FusedPlan {
  int vectors = 4;
  int64_t shared_bytes = 0;
  bool fits = false;
};

// Four vectors a thread while the rest leaves room for a second block on the multiprocessor, else sixteen and one block.
FusedPlan plan_fused(int64_t columns, DType dtype) {
  const int64_t control = (static_cast<int64_t>(sizeof(LossShared)) + 127) / 128 * 128;
  const int64_t vectors = columns * size_of(dtype) / 16;
  auto shared_for = [&](int per_thread) {
    const int64_t rest = vectors - int64_t{per_thread} * kLossThreads;
    return control + (rest > 0 ? rest * 16 : 0);
  };
  if (shared_for(4) <= 227 * 1024 / 2 - 2048) return {4, shared_for(4), true};
  return {16, shared_for(16), shared_for(16) <= kSharedRoom};
}

}  // namespace

bool keeps_row(const LogitArgs& a, DType dtype) {
  return rows_in_step(a, dtype) && plan_fused(a.columns, dtype).fits;
}

Status cross_entropy_fused(const LogitArgs& a, DType dtype, Stream stream) {
  const FusedPlan plan = plan_fused(a.columns, dtype);
  const Launch shape{.grid = a.rows,
                     .block = kLossThreads,
                     .shared_bytes = static_cast<size_t>(plan.shared_bytes),
                     .stream = stream};
  const bool capped = a.cap != 0.0f;
  return dispatch_float(dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    if (plan.vectors == 4)
      return capped ? launch<&fused_kernel<T, 4, true>>(shape, a) : launch<&fused_kernel<T, 4, false>>(shape, a);
    return capped ? launch<&fused_kernel<T, 16, true>>(shape, a) : launch<&fused_kernel<T, 16, false>>(shape, a);
  });
}

}  // namespace fla::detail
