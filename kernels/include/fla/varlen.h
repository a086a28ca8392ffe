// What kernels and their callers want to know of packed sequences, beyond cu_seqlens itself.
#pragma once

#include "fla/describe.h"
#include "fla/status.h"
#include "fla/tensor.h"

namespace fla {

// Of N sequences packed into T tokens, sequence n owning tokens cu_seqlens[n] <= t < cu_seqlens[n + 1]:
//
//   lengths[n] = its length;  max_len = the longest, 0 where there is none
//   position_ids[t] = t - cu_seqlens[n];  sequence_ids[t] = n, the true index: empty sequences count
//   chunk_indices = the pairs (n, c), c < ceil(lengths[n] / chunk_size), in order;  chunk_count = how many
//
// Tokens in no sequence get position 0 and sequence -1; rows of chunk_indices that no chunk fills get (-1, -1). As many
// as C = T / chunk_size + N rows are enough for any lengths, so that shapes, and with them a captured CUDA graph, need not
// know them. cu_seqlens of any content stays in bounds (clamped into [previous, T]).
//
// run() works on device memory without the host seeing any value, in two launches. plan_on_host() works on host memory,
// and refuses what run() clamps: invalid_argument where cu_seqlens does not begin at 0, decreases or does not end at T.
// Errors: as validation; invalid_argument for chunk_size < 1; shape_mismatch for C < T / chunk_size + N.
// Workspace, on the device: where each sequence's chunks begin.
struct VarlenPlan {
  Tensor cu_seqlens;     // [N + 1] i32/i64
  Tensor position_ids;   // [T] dtype of cu_seqlens
  Tensor sequence_ids;   // [T] dtype of cu_seqlens, optional
  Tensor lengths;           // [N] dtype of cu_seqlens, optional
  Tensor max_len;        // [1] dtype of cu_seqlens, optional
  Tensor chunk_indices;  // [C, 2] dtype of cu_seqlens, optional
  Tensor chunk_count;    // [1] dtype of cu_seqlens, optional
  int64_t chunk_size = 64;
};

template <class V>
void describe(V& v, VarlenPlan& a) {
  v.attribute("chunk_size", a.chunk_size, {.min = 1});
  const Dim T = v.dim("T"), N = v.dim("N", 4), C = v.dim("C", 64);
  const Rule wanted{.presence = Presence::expected, .types = kIndex, .like = &a.cu_seqlens};
  v.input("cu_seqlens", a.cu_seqlens, {N + 1}, {.types = kIndex, .content = {Content::offsets, T}});
  v.output("position_ids", a.position_ids, {T}, {.types = kIndex, .like = &a.cu_seqlens});
  v.output("sequence_ids", a.sequence_ids, {T}, wanted);
  v.output("lengths", a.lengths, {N}, wanted);
  v.output("max_len", a.max_len, {1}, wanted);
  v.output("chunk_indices", a.chunk_indices, {C, 2}, wanted);
  v.output("chunk_count", a.chunk_count, {1}, wanted);
}

Status check(const VarlenPlan&);
size_t workspace_bytes(const VarlenPlan&);
Status run(const VarlenPlan&, Workspace, Stream);
Status plan_on_host(const VarlenPlan&);

}  // namespace fla
