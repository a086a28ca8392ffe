// Causal convolution, backward, W = 2 .. 4: reads x and dy once, writes dx once. A thread walks a segment
// upwards with two windows in registers, the inputs and the g = dy act'(z) of the W - 1 tokens before; z is
// recomputed. The walk goes on W - 1 tokens past its segment to finish dx, which is all that is read twice.
// The sums of dweight and dbias stay in registers for the whole walk and leave as one row per block.
//
// Loads run ahead through a ring (token_ring.cuh) that is filled before anything else is looked up, and keeps running
// across the boundaries of sequences: where one ends, the dx still open are finished without further tokens. Where the tokens of
// a batch and its window are not all of one group (seq_idx), every token looks at its neighbours' ids and loads its window again.
//
// Per element 30 instructions of the 47 that the chip issues at the speed of a copy. More than 512 threads on a
// multiprocessor spill.
#include <algorithm>

#include "common/dispatch.h"
#include "common/launch.h"
#include "common/warp.cuh"
#include "conv/causal_conv1d_backward.cuh"
#include "conv/token_ring.cuh"

namespace fla::detail {
namespace {

constexpr int V = kBackwardVector;

// The registers of a thread. Tokens are counted from the first of the segment. kExtras: there is a mask, groups or
// dresidual, or no dx. Without, the tokens of a batch are straight-line code.
template <class T, int W, bool kExtras>
struct BackwardWalk {
  using Ring = TokenRing<T, V, 2, kBackwardThreads, kBackwardBatch, kBackwardBatches>;
  Filter<W, V> filter;
  Past<W, V> past, past_g;
  float dweight[W][V], dbias[V];
  Ring ring;
  const T *next_x, *next_dy;  // of the next fetch
  T* next_dx;                 // of the next dx
  int64_t origin;             // first token, in the row
  int own;                    // tokens of the segment
  int count;                  // tokens to read: W - 1 more, but none past the row
  uint32_t b, d;
  Piece piece;
  int first;      // token of the piece
  int plain_end;  // tokens before it are owned, and finish no dx that has a part of the final state's gradient
};

// `token` goes to slot u of the present batch.
template <class T, int W, bool kExtras>
FLA_DEVICE void fetch(const ConvBackwardArgs& a, int token, int u, BackwardWalk<T, W, kExtras>& walk) {
  if (token >= walk.count) return;
  walk.ring.fetch(u, 0, walk.next_x);
  walk.ring.fetch(u, 1, walk.next_dy);
  walk.next_x += a.signal.x.stride_t;
  walk.next_dy += a.dy.stride_t;
}

// dx of the token W - 1 before `token`, whose g is the last that it needs.
template <bool kEdge, class T, int W, bool kExtras>
FLA_DEVICE void emit_dx(const ConvBackwardArgs& a, int token, const float (&g)[V], BackwardWalk<T, W, kExtras>& walk) {
  const int out = token - (W - 1);
  if (kEdge && kExtras && a.signal.is_padding(walk.b, walk.origin + out)) {
    store(walk.next_dx, zero_vector<T, V>());
    walk.next_dx += a.dx.stride_t;
    return;
  }
  float dx[V];
  FLA_UNROLL
  for (int e = 0; e < V; ++e) dx[e] = walk.filter.tap[W - 1][e] * walk.past_g.token[0][e];
  FLA_UNROLL
  for (int j = 1; j < W; ++j) {
    if (kEdge && out + j >= walk.piece.stop) break;
    if (kEdge && kExtras && !a.signal.joined(walk.b, walk.origin + out, walk.origin + out + j)) continue;
    FLA_UNROLL
    for (int e = 0; e < V; ++e)
      dx[e] = fmaf(walk.filter.tap[W - 1 - j][e], j + 1 < W ? walk.past_g.token[j < W - 1 ? j : 0][e] : g[e],
                   dx[e]);
  }
  if (kEdge && a.dfinal_state) {
    const int64_t slot = walk.origin + out + a.signal.slots - walk.piece.sequence.end;
    if (slot >= 0) {
      float from_state[V];
      a.dfinal_state.read(walk.piece.sequence.index, walk.d, slot, from_state);
      FLA_UNROLL
      for (int e = 0; e < V; ++e) dx[e] += from_state[e];
    }
  }
  if (kExtras && a.signal.mask) scale(dx, a.signal.mask.read(walk.b, walk.origin + out));
  store_floats(walk.next_dx, dx);
  walk.next_dx += a.dx.stride_t;
}

// The windows move on, and the oldest token leaves as dx.
template <bool kEdge, class T, int W, bool kExtras>
FLA_DEVICE void shift(const ConvBackwardArgs& a, int token, const float (&now)[V], const float (&g)[V],
                      BackwardWalk<T, W, kExtras>& walk) {
  const int out = token - (W - 1);
  if ((!kExtras || a.dx) && (!kEdge || (out >= walk.first && out < walk.own))) emit_dx<kEdge>(a, token, g, walk);
  walk.past.push(now);
  walk.past_g.push(g);
}

template <bool kEdge, class T, int W, bool kExtras>
FLA_DEVICE void backward_step(const ConvBackwardArgs& a, int token, int u, Silu silu,
                              BackwardWalk<T, W, kExtras>& walk) {
  float now[V], z[V], g[V];
  const auto dy = walk.ring.read(u, 1);
  const auto x = walk.ring.read(u, 0);
  fetch(a, token + walk.ring.kDepth, u, walk);
  if (kExtras) masked_token<T>(a.signal, x, walk.b, walk.origin + token, now);
  else unpack(x, now);
  bool padding = false;
  if constexpr (kEdge && kExtras) {
    if (a.signal.groups)
      load_past<T, true>(a.signal, walk.piece.sequence, walk.b, walk.origin + token, walk.d, walk.past);
    padding = a.signal.is_padding(walk.b, walk.origin + token);
  }
  fir(walk.filter, walk.past, now, z);
  unpack(dy, g);
  if (kExtras && a.dresidual && (!kEdge || token < walk.own))
    store(a.dresidual.address<T>(walk.b, walk.origin + token, walk.d), padding ? zero_vector<T, V>() : dy);
  multiply_by_slope(z, silu, g);
  if (padding) {
    FLA_UNROLL
    for (int e = 0; e < V; ++e) g[e] = 0.0f;
  } else if (!kEdge || token < walk.own) {
    FLA_UNROLL
    for (int e = 0; e < V; ++e) {
      FLA_UNROLL
      for (int k = 0; k + 1 < W; ++k)
        walk.dweight[k][e] = fmaf(g[e], walk.past.token[k][e], walk.dweight[k][e]);
      walk.dweight[W - 1][e] = fmaf(g[e], now[e], walk.dweight[W - 1][e]);
      walk.dbias[e] += g[e];
    }
  }
  shift<kEdge>(a, token, now, g, walk);
}

template <class T, int W, bool kExtras>
FLA_DEVICE void enter_piece(const ConvBackwardArgs& a, int token, int64_t candidate, BackwardWalk<T, W, kExtras>& walk) {
  walk.piece = piece_from(a.signal.sequences, walk.b, walk.origin, token, walk.count, candidate);
  const Sequence& sequence = walk.piece.sequence;
  walk.first = token;
  walk.plain_end = 0;
  if (!walk.piece.inside) return;
  walk.plain_end = walk.piece.stop < walk.own ? walk.piece.stop : walk.own;
  // The first token in the final state, and the W - 1 that its dx waits for.
  const int64_t in_state = sequence.end - a.signal.slots - walk.origin + W - 1;
  if (a.dfinal_state && in_state < walk.plain_end) walk.plain_end = in_state < 0 ? 0 : static_cast<int>(in_state);
  load_past<T>(a.signal, sequence, walk.b, walk.origin + token, walk.d, walk.past);
}

// Finishes the dx that are open where the piece stops.
template <class T, int W, bool kExtras>
FLA_DEVICE void leave_piece(const ConvBackwardArgs& a, BackwardWalk<T, W, kExtras>& walk) {
  if (!walk.piece.inside) return;
  const float none[V] = {};
  FLA_NO_UNROLL
  for (int j = 0; j < W - 1; ++j) shift<true>(a, walk.piece.stop + j, none, none, walk);
}

// A token of no sequence.
template <class T, int W, bool kExtras>
FLA_DEVICE void clear_gradients(const ConvBackwardArgs& a, int token, int u, BackwardWalk<T, W, kExtras>& walk) {
  fetch(a, token + walk.ring.kDepth, u, walk);
  if (token >= walk.own) return;
  if (kExtras && a.dresidual) store(a.dresidual.address<T>(walk.b, walk.origin + token, walk.d), zero_vector<T, V>());
  if (kExtras && !a.dx) return;
  store(walk.next_dx, zero_vector<T, V>());
  walk.next_dx += a.dx.stride_t;
}

template <class T, int W, bool kExtras>
FLA_DEVICE void edge_step(const ConvBackwardArgs& a, int token, int u, BackwardWalk<T, W, kExtras>& walk) {
  if (token == walk.piece.stop) {
    leave_piece(a, walk);
    enter_piece(a, token, next_candidate(walk.piece), walk);
  }
  if (walk.piece.inside) backward_step<true>(a, token, u, a.silu, walk);
  else clear_gradients(a, token, u, walk);
}

template <class T, int W, bool kExtras>
FLA_DEVICE void walk_segment(const ConvBackwardArgs& a, BackwardWalk<T, W, kExtras>& walk) {
  constexpr int kBatch = kBackwardBatch;
  walk.ring.rewind();
  FLA_NO_UNROLL
  for (int batch = 0; batch < kBackwardBatches; ++batch) {
    FLA_UNROLL
    for (int u = 0; u < kBatch; ++u) fetch(a, batch * kBatch + u, u, walk);
    walk.ring.advance();
  }
  load_filter(a.filter, walk.d, walk.filter);
  enter_piece(a, 0, 0, walk);
  FLA_NO_UNROLL
  for (int token = 0; token < walk.count; token += kBatch) {
    walk.ring.wait();
    const int64_t t = walk.origin + token;
    if (token >= walk.first + W - 1 && token + kBatch <= walk.plain_end &&
        (!kExtras || a.signal.all_joined(walk.b, t - (W - 1), t + kBatch))) {
      with_silu(a.silu, [&](auto form) {
        FLA_UNROLL
        for (int u = 0; u < kBatch; ++u) backward_step<false>(a, token + u, u, form.value, walk);
      });
    } else {
      FLA_NO_UNROLL
      for (int u = 0; u < kBatch && token + u < walk.count; ++u) edge_step(a, token + u, u, walk);
    }
    walk.ring.advance();
  }
  leave_piece(a, walk);
}

// Adds the walks of the block in order and stores its row of partial sums.
template <class T, int W, bool kExtras>
FLA_DEVICE void store_partials(const ConvBackwardArgs& a, const BackwardWalk<T, W, kExtras>& walk, int64_t group,
                               int64_t first_channel) {
  float* sums = shared_memory<float>();
  const int lanes = 1 << a.lane_bits, walks = kBackwardThreads >> a.lane_bits;
  const int weights = lanes * V * W, row = weights + lanes * V;
  const int thread = static_cast<int>(threadIdx.x), lane = thread & (lanes - 1);
  float* mine = sums + (thread >> a.lane_bits) * row;
  block_barrier();  // every thread is done with its slots of the ring
  FLA_UNROLL
  for (int e = 0; e < V; ++e) {
    FLA_UNROLL
    for (int k = 0; k < W; ++k) mine[(lane * V + e) * W + k] = walk.dweight[k][e];
    mine[weights + lane * V + e] = walk.dbias[e];
  }
  block_barrier();
  const int64_t channels_left = a.channels - first_channel;
  auto store_columns = [&](float* partials, int begin, int columns, int per_channel) {
    if (!partials) return;
    float* out = partials + (group * a.channels + first_channel) * per_channel;
    for (int i = thread; i < columns && i < channels_left * per_channel; i += kBackwardThreads) {
      float sum = sums[begin + i];
      for (int w = 1; w < walks; ++w) sum += sums[w * row + begin + i];
      store_float(out + i, sum);
    }
  };
  store_columns(a.weight_partials, 0, weights, W);
  store_columns(a.bias_partials, weights, lanes * V, 1);
}

template <class T, int W, bool kExtras>
FLA_KERNEL void FLA_BOUNDS(kBackwardThreads, kBackwardBlocks) backward_windowed(FLA_PARAMETERS ConvBackwardArgs a) {
  const uint32_t group = blockIdx.x / a.channel_blocks, channel_block = blockIdx.x - group * a.channel_blocks;
  const uint32_t lane = threadIdx.x & ((1u << a.lane_bits) - 1);
  const uint32_t segment = group * (kBackwardThreads >> a.lane_bits) + (threadIdx.x >> a.lane_bits);
  const uint32_t b = segment / a.segments;
  const uint32_t first_channel = (channel_block << a.lane_bits) * V, d = first_channel + lane * V;
  BackwardWalk<T, W, kExtras> walk = {};
  if (b < a.rows && d < a.channels) {
    walk.b = b;
    walk.d = d;
    walk.origin = static_cast<int64_t>(segment - b * a.segments) * a.steps;
    const int64_t left = a.signal.sequences.tokens - walk.origin;
    walk.own = left < a.steps ? static_cast<int>(left) : a.steps;
    walk.count = left < a.steps + W - 1 ? static_cast<int>(left) : a.steps + W - 1;
    walk.next_x = a.signal.x.address<T>(b, walk.origin, d);
    walk.next_dy = a.dy.address<T>(b, walk.origin, d);
    if (!kExtras || a.dx) walk.next_dx = a.dx.address<T>(b, walk.origin, d);
    walk_segment(a, walk);
  }
  store_partials(a, walk, group, first_channel);
}

template <class T, bool kExtras>
Status launch_windowed(const ConvBackwardArgs& a, const WalkPlan& p, Stream stream) {
  const int columns = static_cast<int>(a.filter.taps) + 1;
  const int sums = kBackwardThreads * V * columns * static_cast<int>(sizeof(float));
  const Launch shape = {.grid = p.blocks(),
                        .block = kBackwardThreads,
                        .shared_bytes = static_cast<size_t>(std::max(sums, BackwardWalk<T, 4, false>::Ring::kTotalBytes)),
                        .stream = stream};
  if (a.filter.taps == 2) return launch<&backward_windowed<T, 2, kExtras>>(shape, a);
  if (a.filter.taps == 3) return launch<&backward_windowed<T, 3, kExtras>>(shape, a);
  return launch<&backward_windowed<T, 4, kExtras>>(shape, a);
}

}  // namespace

Status causal_conv1d_backward_windowed(const ConvBackwardArgs& a, const WalkPlan& p, DType dtype,
                                       Stream stream) {
  return dispatch_float(dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    return a.signal.mask || a.signal.groups || a.dresidual || !a.dx ? launch_windowed<T, true>(a, p, stream)
                                                 : launch_windowed<T, false>(a, p, stream);
  });
}

}  // namespace fla::detail
