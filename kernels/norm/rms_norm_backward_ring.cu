// RMS norm, backward, evenly spaced rows of 2 KB to 32 KB: persistent blocks, each with a ring of rows in shared memory
// filled by bulk copies.
//
// 3 streams (u, dy read, dx written; 4 with the residual gradient) and one barrier per row. Registers cannot hold
// enough loads in flight: prefetching the next row into them tops out 14 % lower. Column sums live in registers for the
// block's whole life and leave as one row of partial sums.
//
// The pace matters more than the depth: two rows in flight per block are enough. Blocks that do nothing but wait for
// memory fill its queues until loads and stores hold each other up: N = 4096 takes 100 us on an H200 when each row waits
// for its rstd, 107 us when that is asked for a row ahead, 108 us with half as many blocks again. One block of 512 threads
// is on the other side of the optimum: there the row ahead makes 100 us out of 107, unless a fourth stream gives it time.
#include "common/dispatch.h"
#include "norm/rms_norm_backward.cuh"

namespace fla::detail {
namespace {

inline constexpr int kStages = 2;

struct RingShared {
  BlockSlots<1> slots[kStages];
  TransactionBarrier filled[kStages];
};

// Each thread keeps two vectors of every operand between their two uses. Blocks of 1024 threads have no registers for
// that: they read the row from the ring twice, and the stage is free one barrier later.
template <class U, class Y, int kThreads, bool kBias>
FLA_KERNEL void FLA_BOUNDS(kThreads, ring_blocks(kThreads)) ring_kernel(FLA_PARAMETERS BackwardArgs a) {
  constexpr int kWidth = 16 / (sizeof(U) > sizeof(Y) ? sizeof(U) : sizeof(Y));
  constexpr int kVectors = 2;
  constexpr bool kKeep = kThreads <= 512;
  constexpr bool kKeepWeight = kKeep && (kThreads >= 256 || !kBias);  // five blocks have no registers for it
  release_dependents();
  const int thread = static_cast<int>(threadIdx.x), chunks = a.columns / kWidth;
  const bool with_residual = a.dresidual_out.data.data != nullptr;
  const int u_bytes = a.columns * static_cast<int>(sizeof(U)), dy_bytes = a.columns * static_cast<int>(sizeof(Y));
  const int stage_bytes = u_bytes + dy_bytes + (with_residual ? u_bytes : 0);
  auto* ring = shared_memory<unsigned char>();
  auto* shared = reinterpret_cast<RingShared*>(ring + stage_bytes * kStages);

  if (thread == 0) {
    for (int s = 0; s < kStages; ++s) barrier_init(&shared->filled[s]);
  }
  block_barrier();
  auto refill = [&](int64_t row, int stage) {
    if (thread != 0 || row >= a.grid.rows) return;
    unsigned char* at = ring + stage * stage_bytes;
    TransactionBarrier* filled = &shared->filled[stage];
    barrier_expect(filled, static_cast<uint32_t>(stage_bytes));
    bulk_load(at, static_cast<const U*>(a.u.data.data) + a.grid.offset<true>(row, a.u), static_cast<uint32_t>(u_bytes), filled);
    at += u_bytes;
    bulk_load(at, static_cast<const Y*>(a.dy.data.data) + a.grid.offset<true>(row, a.dy), static_cast<uint32_t>(dy_bytes), filled);
    at += dy_bytes;
    if (with_residual)
      bulk_load(at, static_cast<const U*>(a.dresidual_out.data.data) + a.grid.offset<true>(row, a.dresidual_out),
                static_cast<uint32_t>(u_bytes), filled);
    bulk_commit(filled);
  };
  FLA_NO_UNROLL
  for (int s = 0; s < kStages; ++s) refill(blockIdx.x + s * a.parts, s);

  float weight[kKeepWeight ? kVectors : 1][kWidth];
  if constexpr (kKeepWeight) {
    FLA_UNROLL
    for (int i = 0; i < kVectors; ++i) {
      const int chunk = thread + i * kThreads;
      if (chunk < chunks) load_weight(a, chunk * kWidth, weight[i]);
    }
  }
  auto weight_of = [&](int i, int column, float (&w)[kWidth]) {
    if constexpr (kKeepWeight) {
      FLA_UNROLL
      for (int e = 0; e < kWidth; ++e) w[e] = weight[i][e];
    } else {
      load_weight(a, column, w);
    }
  };
  float dweight[kVectors][kWidth] = {}, dbias[kBias ? kVectors : 1][kWidth] = {};

  auto load_rstd = [&](int64_t row) {
    return load_float(static_cast<const float*>(a.rstd.data.data) + a.grid.offset<true>(row, a.rstd));
  };
  const bool ahead = kThreads == 512 && !with_residual;
  float next_rstd = ahead && blockIdx.x < a.grid.rows ? load_rstd(blockIdx.x) : 0.0f;

  int stage = 0;
  uint32_t parity = 0;
  FLA_NO_UNROLL
  for (int64_t row = blockIdx.x; row < a.grid.rows; row += a.parts) {
    const float rstd = ahead ? next_rstd : load_rstd(row);
    if (ahead && row + a.parts < a.grid.rows) next_rstd = load_rstd(row + a.parts);
    barrier_wait(&shared->filled[stage], parity);
    const unsigned char* at = ring + stage * stage_bytes;
    const U* su = reinterpret_cast<const U*>(at);
    const Y* sdy = reinterpret_cast<const Y*>(at + u_bytes);
    const U* sdres = reinterpret_cast<const U*>(at + u_bytes + dy_bytes);
    Vector<U, kWidth> vu[kKeep ? kVectors : 1], vres[kKeep ? kVectors : 1];
    Vector<Y, kWidth> vdy[kKeep ? kVectors : 1];
    float means[2] = {};
    FLA_UNROLL
    for (int i = 0; i < kVectors; ++i) {
      const int chunk = thread + i * kThreads, held = kKeep ? i : 0;
      if (chunk < chunks) {
        vu[held] = load<U, kWidth>(su + chunk * kWidth);
        vdy[held] = load<Y, kWidth>(sdy + chunk * kWidth);
        if (kKeep && with_residual) vres[held] = load<U, kWidth>(sdres + chunk * kWidth);
        float u[kWidth], dy[kWidth], w[kWidth];
        unpack(vu[held], u);
        unpack(vdy[held], dy);
        weight_of(held, chunk * kWidth, w);
        FLA_UNROLL
        for (int e = 0; e < kWidth; ++e) {
          const float scaled = dy[e] * rstd;
          dweight[i][e] = fmaf(scaled, u[e], dweight[i][e]);
          if constexpr (kBias) dbias[i][e] += dy[e];
          means[e % 2] = fmaf(scaled * w[e], u[e], means[e % 2]);
        }
      }
    }
    // The barrier inside also says that every thread has emptied its part of this row.
    constexpr int kWarps = kThreads < 128 ? 4 : kThreads / kWarp;
    const float mean = block_sum<kWarps>(means[0] + means[1], shared->slots[stage]) * a.inverse_columns;
    if constexpr (kKeep) refill(row + kStages * a.parts, stage);
    const float minus_slope = -rstd * rstd * mean;
    const RowOffsets<true> to(a, row);
    FLA_UNROLL
    for (int i = 0; i < kVectors; ++i) {
      const int chunk = thread + i * kThreads, column = chunk * kWidth, held = kKeep ? i : 0;
      if (chunk < chunks) {
        if constexpr (!kKeep) {
          vu[held] = load<U, kWidth>(su + column);
          vdy[held] = load<Y, kWidth>(sdy + column);
          if (with_residual) vres[held] = load<U, kWidth>(sdres + column);
        }
        float u[kWidth], dy[kWidth], du[kWidth], w[kWidth];
        unpack(vu[held], u);
        unpack(vdy[held], dy);
        weight_of(held, column, w);
        input_gradient(u, dy, w, rstd, minus_slope, du);
        if (with_residual) {
          float carried[kWidth];
          unpack(vres[held], carried);
          FLA_UNROLL
          for (int e = 0; e < kWidth; ++e) du[e] += carried[e];
        }
        if (a.dx.data) store_floats(static_cast<Y*>(a.dx.data.data) + to.dx + column, du);
        if (a.dresidual.data) store_floats(static_cast<U*>(a.dresidual.data.data) + to.dresidual + column, du);
        if (a.y.data) write_recomputed(a, u, rstd, w, to.y, column);
      }
    }
    if constexpr (!kKeep) {
      block_barrier();
      refill(row + kStages * a.parts, stage);
    }
    if (++stage == kStages) {
      stage = 0;
      parity ^= 1;
    }
  }
  FLA_UNROLL
  for (int i = 0; i < kVectors; ++i) {
    const int chunk = thread + i * kThreads;
    if (chunk < chunks) {
      const int64_t at = static_cast<int64_t>(blockIdx.x) * a.partial_stride + chunk * kWidth;
      store_partial(a.dweight_partials, at, dweight[i]);
      if constexpr (kBias) store_partial(a.dbias_partials, at, dbias[i]);
    }
  }
}

template <class U, class Y, int kThreads>
Status launch_ring(const Launch& shape, const BackwardArgs& a, bool with_bias) {
  return with_bias ? launch<&ring_kernel<U, Y, kThreads, true>>(shape, a) : launch<&ring_kernel<U, Y, kThreads, false>>(shape, a);
}

}  // namespace

template <class U, class Y>
Status rms_norm_backward_ring(const BackwardArgs& a, const BackwardPlan& plan, bool with_bias, Stream stream) {
  const int64_t row_bytes = static_cast<int64_t>(a.columns) * (sizeof(U) + sizeof(Y) + (a.dresidual_out.data ? sizeof(U) : 0));
  const Launch shape{.grid = plan.parts,
                     .block = plan.threads,
                     .shared_bytes = static_cast<size_t>(row_bytes * kStages) + sizeof(RingShared),
                     .stream = stream};
  if (plan.threads == 64) return launch_ring<U, Y, 64>(shape, a, with_bias);
  if (plan.threads == 128) return launch_ring<U, Y, 128>(shape, a, with_bias);
  if (plan.threads == 256) return launch_ring<U, Y, 256>(shape, a, with_bias);
  if (plan.threads == 512) return launch_ring<U, Y, 512>(shape, a, with_bias);
  return launch<&ring_kernel<U, Y, 1024, false>>(shape, a);
}

template Status rms_norm_backward_ring<float, float>(const BackwardArgs&, const BackwardPlan&, bool, Stream);
template Status rms_norm_backward_ring<f16, f16>(const BackwardArgs&, const BackwardPlan&, bool, Stream);
template Status rms_norm_backward_ring<bf16, bf16>(const BackwardArgs&, const BackwardPlan&, bool, Stream);
template Status rms_norm_backward_ring<float, bf16>(const BackwardArgs&, const BackwardPlan&, bool, Stream);

}  // namespace fla::detail
