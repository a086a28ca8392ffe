// Divergence between two rows of logits, loss and gradient. The first vectors of both rows stay in registers, the next in
// shared memory, fetched by bulk copies: every logit is read once (6 bytes an element in 16 bits). One block per row, of
// which two share a multiprocessor while their rows fit; then one; then a cluster of blocks per row, which tell each other
// their statistics and sums. Only what fits in none is read a second time. Everything after the logits is in base 2, one
// operation per exponential; each divergence has code of its own, since a branch per column would keep a column's chain of
// operations from overlapping its neighbours'.
#include <algorithm>
#include <type_traits>

#include "common/workspace.h"
#include "fla/distribution_loss.h"
#include "fla/validate.h"
#include "loss/cross_entropy.cuh"

namespace fla {
namespace detail {
namespace {

constexpr int kFewHeld = 2, kManyHeld = 6;       // vectors of each row in a thread's registers: two blocks a multiprocessor, one
constexpr int kPieceVectors = 2 * kLossThreads;  // of each row under one barrier
constexpr int64_t kRoomOfTwo = 113 * 1024;       // shared memory of each of two blocks: 228 KB, 1 KB a block is the system's
constexpr int kMostPieces = static_cast<int>(kSharedLimit / 32 / kPieceVectors) + 1;
constexpr int kMostBlocks = 8;                   // of a cluster

struct DivergenceArgs {
  LogitArgs student;
  const void* target = nullptr;
  int64_t target_stride = 0;
  int32_t shared_vectors = 0;  // of each row, in each block
  int32_t cluster = 1;         // blocks per row
  Divergence divergence = Divergence::forward_kl;
  float beta = 0;
};

struct DivergenceShared {
  SoftmaxState student[32], target[32];
  BlockSlots<2> sums;
  float statistics_of_block[4][kMostBlocks], sums_of_block[2][kMostBlocks];
  TransactionBarrier arrived[kMostPieces];
};
constexpr int64_t kControlBytes = (static_cast<int64_t>(sizeof(DivergenceShared)) + 127) / 128 * 128;

FLA_DEVICE float log2_sum(const SoftmaxState& s) {
  return s.sum == 0.0f ? -INFINITY : fmaf(math::log(s.sum), math::kLog2E, s.max);
}

// Gives every block of a cluster the values of all, by rank.
template <int N>
FLA_DEVICE void exchange(const float (&values)[N], float (&of_block)[N][kMostBlocks], int rank, int cluster) {
  const int thread = static_cast<int>(threadIdx.x);
  if (thread < cluster) {
    FLA_UNROLL
    for (int i = 0; i < N; ++i) cluster_store(&of_block[i][rank], thread, values[i]);
  }
  cluster_barrier();
}

// Sums over the row's blocks, in the order of ranks. Once in a kernel.
FLA_DEVICE void row_sum(float (&sums)[2], DivergenceShared& shared, int rank, int cluster) {
  block_sum(sums, shared.sums);
  if (cluster == 1) return;
  exchange(sums, shared.sums_of_block, rank, cluster);
  FLA_UNROLL
  for (int i = 0; i < 2; ++i) {
    sums[i] = 0.0f;
    for (int b = 0; b < cluster; ++b) sums[i] += shared.sums_of_block[i][b];
  }
}

// The formulas, of one column: base-2 logarithms of both probabilities in, loss and gradient out.
template <Divergence kDivergence>
struct DivergenceTerms {
  float scale, student_lse, target_lse;  // to base 2
  float beta, factor;                    // factor: of the gradient, for logarithms in base 2
  float centre = 0;                      // mean under q of log2(q / other), which the gradient is relative to

  struct Column {
    float p, q;
    float loss;          // log2, weighted
    float log2_q_share;  // log2(q / p) or log2(q / m)
  };
  FLA_DEVICE Column at(float student, float target) const {
    const float log_q = fmaf(student, scale, -student_lse), log_p = fmaf(target, scale, -target_lse);
    Column c;
    c.p = math::exp2(log_p);
    c.q = math::exp2(log_q);
    const float apart = log_q - log_p;
    if constexpr (kDivergence == Divergence::forward_kl) {
      c.loss = log_p == -INFINITY ? 0.0f : -c.p * apart;
      c.log2_q_share = 0.0f;
    } else if constexpr (kDivergence == Divergence::reverse_kl) {
      c.log2_q_share = log_q == -INFINITY ? 0.0f : apart;
      c.loss = c.q * c.log2_q_share;
    } else {
      // m over the larger of p and q, so that nothing overflows.
      const float larger = apart > 0.0f ? 1.0f - beta : beta;
      const float mixed = math::log2(fmaf(1.0f - larger, math::exp2(-fabsf(apart)), larger));
      const float log2_p_share = log_p == -INFINITY ? 0.0f : -fmaxf(apart, 0.0f) - mixed;
      c.log2_q_share = log_q == -INFINITY ? 0.0f : fminf(apart, 0.0f) - mixed;
      c.loss = beta * c.p * log2_p_share + (1.0f - beta) * c.q * c.log2_q_share;
    }
    return c;
  }
  FLA_DEVICE float gradient(const Column& c) const {
    if constexpr (kDivergence == Divergence::forward_kl) return factor * (c.q - c.p);
    return factor * c.q * (c.log2_q_share - centre);
  }
};

template <class T, int kWidth, int kHeld>
FLA_KERNEL void FLA_BOUNDS(kLossThreads, kWidth > 1 && kHeld == kFewHeld ? 2 : 1) divergence_kernel(FLA_PARAMETERS DivergenceArgs a) {
  using Packed = Vector<T, kWidth>;
  auto* shared = reinterpret_cast<DivergenceShared*>(shared_memory<unsigned char>());
  T* student_tail = reinterpret_cast<T*>(shared_memory<unsigned char>() + kControlBytes);
  T* target_tail = student_tail + static_cast<int64_t>(a.shared_vectors) * kWidth;
  const int thread = static_cast<int>(threadIdx.x);
  // With few vectors held, a whole row fits on chip; single elements are all read again.
  constexpr bool kSplit = kWidth > 1, kReadsAgain = kWidth == 1 || kHeld == kManyHeld;
  const int cluster = kSplit ? a.cluster : 1, rank = cluster > 1 ? cluster_rank() : 0;
  const int64_t row = blockIdx.x / static_cast<uint32_t>(cluster);
  const LogitArgs& s = a.student;
  const T* logits = static_cast<const T*>(s.logits) + row * s.logits_stride;
  const T* target = static_cast<const T*>(a.target) + row * a.target_stride;
  T* dlogits = static_cast<T*>(s.dlogits) + row * s.dlogits_stride;
  int head = 0, vectors = s.columns, scalar = -1;
  if constexpr (kWidth > 1) {
    const RowSpan<T> span(logits, s.columns);
    const int share = (span.vectors + cluster - 1) / cluster, before = rank * share;
    head = span.column(before);
    vectors = span.vectors - before < share ? span.vectors - before : share;
    if (rank == 0) scalar = span.scalar_column(thread, s.columns);
  }
  const auto column = [&](int v) { return head + v * kWidth; };
  const int kept = vectors < kHeld * kLossThreads ? vectors : kHeld * kLossThreads;
  const int waiting = vectors - kept < a.shared_vectors ? vectors - kept : a.shared_vectors;
  Packed held_student[kHeld], held_target[kHeld];
  FLA_UNROLL
  for (int i = 0; i < kHeld; ++i) {
    const int v = thread + i * kLossThreads;
    if (v < kept) {
      held_student[i] = load<T, kWidth>(logits + column(v));
      held_target[i] = load<T, kWidth>(target + column(v));
    }
  }
  if (s.labels && load_index(s.labels, row * s.label_stride) == s.ignore_index) {
    for (int v = thread; v < vectors; v += kLossThreads) store(dlogits + column(v), zero_vector<T, kWidth>());
    if (scalar >= 0) store_float(dlogits + scalar, 0.0f);
    if (rank == 0 && thread == 0) store_float(s.loss_rows + row * s.loss_stride, 0.0f);
    return;  // all blocks of the row, before any barrier
  }
  if constexpr (kWidth > 1) {
    if (thread == 0) {
      FLA_NO_UNROLL
      for (int first = 0; first < waiting; first += kPieceVectors) {
        const int count = waiting - first < kPieceVectors ? waiting - first : kPieceVectors;
        const auto bytes = static_cast<uint32_t>(count) * 16;
        TransactionBarrier* arrived = &shared->arrived[first / kPieceVectors];
        barrier_init(arrived);
        barrier_expect(arrived, 2 * bytes);
        bulk_load(student_tail + first * kWidth, logits + column(kept + first), bytes, arrived);
        bulk_load(target_tail + first * kWidth, target + column(kept + first), bytes, arrived);
        bulk_commit(arrived);
      }
    }
  }
  // The transaction barriers are initialised, and the other blocks have begun.
  if (cluster > 1) cluster_barrier();
  else if (waiting > 0) block_barrier();

  // Visits this thread's columns of both rows, as floats. `wait`: for what is still on its way to shared memory.
  const auto sweep = [&](bool wait, auto&& visit) {
    const auto visit_packed = [&](const Packed& one, const Packed& other, int v) {
      float x[kWidth], y[kWidth];
      unpack(one, x);
      unpack(other, y);
      visit(x, y, column(v));
    };
    FLA_UNROLL
    for (int i = 0; i < kHeld; ++i) {
      const int v = thread + i * kLossThreads;
      if (v < kept) visit_packed(held_student[i], held_target[i], v);
    }
    FLA_NO_UNROLL
    for (int v = thread; v < waiting; v += kLossThreads) {
      if (wait) barrier_wait(&shared->arrived[v / kPieceVectors], 0);
      visit_packed(load<T, kWidth>(student_tail + v * kWidth), load<T, kWidth>(target_tail + v * kWidth), kept + v);
    }
    if constexpr (kReadsAgain) {
      FLA_UNROLL_BY(2)
      for (int v = kept + waiting + thread; v < vectors; v += kLossThreads)
        visit_packed(load<T, kWidth>(logits + column(v)), load<T, kWidth>(target + column(v)), v);
    }
    if (scalar >= 0) {
      float x[1] = {load_float(logits + scalar)}, y[1] = {load_float(target + scalar)};
      visit(x, y, scalar);
    }
  };

  LogitStatistics<true> student_seen, target_seen;
  sweep(true, [&](auto& x, auto& y, int) {
    student_seen.add(s, x);
    target_seen.add(s, y);
  });
  SoftmaxState of_student = block_merge(student_seen.softmax, shared->student);
  SoftmaxState of_target = block_merge(target_seen.softmax, shared->target);
  if (cluster > 1) {
    auto& of_block = shared->statistics_of_block;
    exchange({of_student.max, of_student.sum, of_target.max, of_target.sum}, of_block, rank, cluster);
    of_student = of_target = {};
    for (int b = 0; b < cluster; ++b) {
      of_student = merge(of_student, {of_block[0][b], of_block[1][b]});
      of_target = merge(of_target, {of_block[2][b], of_block[3][b]});
    }
  }

  const auto finish = [&](auto divergence) {
    constexpr Divergence kDivergence = decltype(divergence)::value;
    constexpr bool kForward = kDivergence == Divergence::forward_kl;
    DivergenceTerms<kDivergence> terms{.scale = s.scale * math::kLog2E,
                                       .student_lse = log2_sum(of_student),
                                       .target_lse = log2_sum(of_target),
                                       .beta = a.beta,
                                       .factor = upstream_factor(s, row)};
    if constexpr (!kForward) terms.factor *= math::kLn2;
    if constexpr (kDivergence == Divergence::jensen_shannon) terms.factor *= 1.0f - a.beta;
    float sums[2] = {};  // loss, centre
    if constexpr (!kForward) {
      sweep(false, [&](auto& x, auto& y, int) {
        constexpr int kCount = static_cast<int>(sizeof x / sizeof x[0]);
        float loss = 0.0f, centre = 0.0f;
        FLA_UNROLL
        for (int e = 0; e < kCount; ++e) {
          const auto c = terms.at(x[e], y[e]);
          if constexpr (kDivergence == Divergence::jensen_shannon) loss += c.loss;
          centre = fmaf(c.q, c.log2_q_share, centre);
        }
        sums[0] += loss;
        sums[1] += centre;
      });
      row_sum(sums, *shared, rank, cluster);
      terms.centre = sums[1];
      if constexpr (kDivergence == Divergence::reverse_kl) sums[0] = terms.centre;
    }
    sweep(false, [&](auto& x, auto& y, int at) {
      constexpr int kCount = static_cast<int>(sizeof x / sizeof x[0]);
      [[maybe_unused]] float loss = 0.0f;
      FLA_UNROLL
      for (int e = 0; e < kCount; ++e) {
        const auto c = terms.at(x[e], y[e]);
        if constexpr (kForward) loss += c.loss;
        x[e] = terms.gradient(c);
      }
      if constexpr (kForward) sums[0] += loss;
      store_floats(dlogits + at, x);
    });
    if constexpr (kForward) row_sum(sums, *shared, rank, cluster);
    if (rank == 0 && thread == 0) store_float(s.loss_rows + row * s.loss_stride, math::kLn2 * sums[0]);
  };
  if (a.divergence == Divergence::forward_kl) finish(std::integral_constant<Divergence, Divergence::forward_kl>());
  else if (a.divergence == Divergence::reverse_kl) finish(std::integral_constant<Divergence, Divergence::reverse_kl>());
  else finish(std::integral_constant<Divergence, Divergence::jensen_shannon>());
}

bool all_in_step(const DivergenceArgs& a, DType dtype) {
  const auto apart = reinterpret_cast<uintptr_t>(a.student.logits) - reinterpret_cast<uintptr_t>(a.target);
  return rows_in_step(a.student, dtype) && apart % 16 == 0 &&
         (a.student.logits_stride - a.target_stride) * size_of(dtype) % 16 == 0;
}

struct DivergencePlan {
  int held, cluster;
  int64_t shared_vectors = 0;
};

// The first that keeps a row, else the last (H200: clusters of two blocks take 2.18 ms at 8192 x 128256, 66 % of a copy).
constexpr DivergencePlan kPlans[] = {{kFewHeld, 1}, {kManyHeld, 1}, {kManyHeld, 2}, {kManyHeld, 4}, {kManyHeld, kMostBlocks}};

DivergencePlan plan_divergence(int64_t columns, DType dtype) {
  const int64_t vectors = columns * size_of(dtype) / 16;
  DivergencePlan plan = {};
  for (const DivergencePlan& candidate : kPlans) {
    plan = candidate;
    const int64_t room = ((plan.held == kFewHeld ? kRoomOfTwo : int64_t{kSharedLimit}) - kControlBytes) / 32;
    const int64_t rest = divide_up(vectors, plan.cluster) - plan.held * kLossThreads;
    plan.shared_vectors = std::clamp<int64_t>(rest, 0, room);
    if (rest <= room) break;
  }
  return plan;
}

Status launch_divergence(DivergenceArgs a, DType dtype, Stream stream) {
  const bool wide = all_in_step(a, dtype);
  const DivergencePlan plan = wide ? plan_divergence(a.student.columns, dtype) : DivergencePlan{kFewHeld, 1};
  a.shared_vectors = static_cast<int32_t>(plan.shared_vectors);
  a.cluster = plan.cluster;
  const Launch shape{.grid = a.student.rows * plan.cluster,
                     .block = kLossThreads,
                     .cluster = plan.cluster,
                     .shared_bytes = static_cast<size_t>(kControlBytes + plan.shared_vectors * 32),
                     .stream = stream};
  return dispatch_float(dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    constexpr int kWidth = 16 / sizeof(T);
    if (!wide) return launch<&divergence_kernel<T, 1, kFewHeld>>(shape, a);
    return plan.held == kFewHeld ? launch<&divergence_kernel<T, kWidth, kFewHeld>>(shape, a)
                                 : launch<&divergence_kernel<T, kWidth, kManyHeld>>(shape, a);
  });
}

}  // namespace
}  // namespace detail

namespace {

using namespace detail;

size_t row_loss_bytes(const KlDivForwardBackward& a) {
  return a.reduction == Reduction::none ? 0 : align_workspace(static_cast<size_t>(a.logits.size[0]) * sizeof(float));
}

bool counts_labels(const KlDivForwardBackward& a) {
  return a.reduction == Reduction::mean && a.labels && !a.normalizer && a.logits.size[0] > 0;
}

}  // namespace

Status check(const KlDivForwardBackward& a) { return check_classes(a.logits.size[1]); }

size_t workspace_bytes(const KlDivForwardBackward& a) {
  return row_loss_bytes(a) + (counts_labels(a) ? kWorkspaceAlignment : 0);
}

Status run(const KlDivForwardBackward& a, Workspace workspace, Stream stream) {
  if (Status s = validate(a); !s.ok()) return s;
  if (Status s = check_workspace(workspace, workspace_bytes(a)); !s.ok()) return s;
  auto* scratch = static_cast<char*>(workspace.data);
  const bool mean = a.reduction == Reduction::mean;
  DivergenceArgs args;
  args.target = a.target_logits.data;
  args.target_stride = a.target_logits.stride[0];
  args.divergence = a.divergence;
  args.beta = a.beta;
  LogitArgs& s = args.student;
  s = rows_of(a.logits, a.labels, a.ignore_index);
  s.scale = 1.0f / a.temperature;
  s.dlogits = a.dlogits.data;
  s.dlogits_stride = a.dlogits.stride[0];
  s.dloss = static_cast<const float*>(a.dloss.data);
  s.dloss_stride = a.reduction == Reduction::none && a.dloss ? a.dloss.stride[0] : 0;
  s.empty_divisor_is_zero = a.empty_mean == EmptyMean::zero;
  s.loss_rows = a.reduction == Reduction::none ? static_cast<float*>(a.loss.data) : reinterpret_cast<float*>(scratch);
  s.loss_stride = a.reduction == Reduction::none ? a.loss.stride[0] : 1;
  if (counts_labels(a)) {
    auto* divisor = reinterpret_cast<float*>(scratch + row_loss_bytes(a));
    if (Status status = count_valid_labels(s, divisor, stream); !status.ok()) return status;
    s.divisor = divisor;
  } else if (mean && a.normalizer) {
    s.divisor = static_cast<const float*>(a.normalizer.data);
  } else if (mean) {
    s.upstream_scale = 1.0f / static_cast<float>(s.rows);
  }
  if (s.rows > 0)
    if (Status status = launch_divergence(args, a.logits.dtype, stream); !status.ok()) return status;
  if (a.reduction == Reduction::none) return {};
  LossReduction r;
  r.loss_rows = s.loss_rows;
  r.loss = static_cast<float*>(a.loss.data);
  r.normalizer = static_cast<const float*>(a.normalizer.data);
  r.mean = mean;
  r.empty_is_nan = a.empty_mean == EmptyMean::nan;
  return reduce_losses(r, s, stream);
}

}  // namespace fla
