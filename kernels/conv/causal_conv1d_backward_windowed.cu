// Causal convolution, backward, W = 2 .. 4: reads x and dy once, writes dx once. A thread walks a segment
// upwards with two windows in registers, the inputs and the g = dy act'(z) of the W - 1 tokens before; z is
// recomputed. The walk goes on W - 1 tokens past its segment to finish dx, which is all that is read twice.
// The sums of dweight and dbias stay in registers for the whole walk and leave as one row per block.
//
// Loads run kBatches batches ahead, through a ring in shared memory that each thread keeps to itself: registers hold four
// tokens at most, which is 32 KB in flight on a multiprocessor where 40 to 55 are needed. A slot is refilled as soon as it
// has been unpacked; there is no barrier.
#include <algorithm>

#include "common/dispatch.h"
#include "common/launch.h"
#include "common/ptx.cuh"
#include "common/warp.cuh"
#include "conv/causal_conv1d_backward.cuh"

namespace fla::detail {
namespace {

constexpr int V = kBackwardVector;

// Tokens of a segment that belong to one sequence, counted from the first of them in 32 bits.
struct Piece {
  int64_t index;       // of the sequence
  int64_t begin;       // first token, in the row
  int64_t final_slot;  // of dfinal_state, for the first token; negative: the token is not in the final state
  int own;             // tokens of the piece
  int live;            // tokens whose g its dx need: W - 1 more, but none past the sequence
  uint32_t b, d;
};

constexpr int kBatch = kBackwardBatch, kBatches = kBackwardBatches;

// A thread's slots of the ring: [batch][token of the batch][x, dy][thread].
template <class T>
struct Ring {
  static constexpr int kBytes = V * sizeof(T), kTokenBytes = 2 * kBackwardThreads * kBytes;
  static constexpr int kBatchBytes = kBatch * kTokenBytes, kTotalBytes = kBatches * kBatchBytes;
  unsigned char* batch;  // the present one

  FLA_DEVICE T* x(int u) const { return reinterpret_cast<T*>(batch + u * kTokenBytes); }
  FLA_DEVICE T* dy(int u) const { return reinterpret_cast<T*>(batch + u * kTokenBytes + kBackwardThreads * kBytes); }
  FLA_DEVICE void advance() {
    unsigned char* first = shared_memory<unsigned char>() + static_cast<int>(threadIdx.x) * kBytes;
    batch += kBatchBytes;
    if (batch == first + kTotalBytes) batch = first;
  }
  FLA_DEVICE void rewind() { batch = shared_memory<unsigned char>() + static_cast<int>(threadIdx.x) * kBytes; }
};

// The registers of a thread.
template <class T, int W>
struct BackwardWalk {
  Filter<W, V> filter;
  Past<W, V> past, past_g;
  float dweight[W][V], dbias[V];
  Ring<T> ring;
  const T *next_x, *next_dy;  // of the next refill
  T* next_dx;                 // of the next dx
};

// `token` goes to slot u of the present batch.
template <class T, int W>
FLA_DEVICE void refill(const ConvBackwardArgs& a, const Piece& p, int token, int u, BackwardWalk<T, W>& walk) {
  if (token >= p.live) return;
  async_copy<Ring<T>::kBytes>(walk.ring.x(u), walk.next_x);
  async_copy<Ring<T>::kBytes>(walk.ring.dy(u), walk.next_dy);
  walk.next_x += a.signal.x.stride_t;
  walk.next_dy += a.dy.stride_t;
}

// dx of the token W - 1 before `token`, whose g is the last that it needs.
template <bool kEdge, class T, int W>
FLA_DEVICE void emit_dx(const ConvBackwardArgs& a, const Piece& p, int token, const float (&g)[V],
                        BackwardWalk<T, W>& walk) {
  const int out = token - (W - 1);
  float dx[V];
  FLA_UNROLL
  for (int e = 0; e < V; ++e) dx[e] = walk.filter.tap[W - 1][e] * walk.past_g.token[0][e];
  FLA_UNROLL
  for (int j = 1; j < W; ++j) {
    if (kEdge && out + j >= p.live) break;
    FLA_UNROLL
    for (int e = 0; e < V; ++e)
      dx[e] = fmaf(walk.filter.tap[W - 1 - j][e], j + 1 < W ? walk.past_g.token[j < W - 1 ? j : 0][e] : g[e],
                   dx[e]);
  }
  if (kEdge && a.dfinal_state && p.final_slot + out >= 0) {
    float from_state[V];
    a.dfinal_state.read(p.index, p.d, p.final_slot + out, from_state);
    FLA_UNROLL
    for (int e = 0; e < V; ++e) dx[e] += from_state[e];
  }
  if (a.signal.mask) scale(dx, a.signal.mask.read(p.b, p.begin + out));
  store_floats(walk.next_dx, dx);
  walk.next_dx += a.dx.stride_t;
}

template <bool kEdge, class T, int W>
FLA_DEVICE void backward_step(const ConvBackwardArgs& a, const Piece& p, int token, int u,
                              BackwardWalk<T, W>& walk) {
  float now[V] = {}, g[V] = {};
  if (!kEdge || token < p.live) {
    float z[V];
    const auto dy = load<T, V>(walk.ring.dy(u));
    masked_token<T>(a.signal, load<T, V>(walk.ring.x(u)), p.b, p.begin + token, now);
    refill(a, p, token + kBatches * kBatch, u, walk);
    fir(walk.filter, walk.past, now, z);
    unpack(dy, g);
    if (a.dresidual && (!kEdge || token < p.own))
      store(a.dresidual.address<T>(p.b, p.begin + token, p.d), dy);
    multiply_by_slope(z, a.silu, g);
  }
  if (!kEdge || token < p.own) {
    FLA_UNROLL
    for (int e = 0; e < V; ++e) {
      FLA_UNROLL
      for (int k = 0; k + 1 < W; ++k)
        walk.dweight[k][e] = fmaf(g[e], walk.past.token[k][e], walk.dweight[k][e]);
      walk.dweight[W - 1][e] = fmaf(g[e], now[e], walk.dweight[W - 1][e]);
      walk.dbias[e] += g[e];
    }
  }
  const int out = token - (W - 1);
  if (a.dx && (!kEdge || (out >= 0 && out < p.own))) emit_dx<kEdge>(a, p, token, g, walk);
  walk.past.push(now);
  walk.past_g.push(g);
}

template <class T, int W>
FLA_DEVICE void walk_piece(const ConvBackwardArgs& a, const Piece& p, const Sequence& sequence,
                           BackwardWalk<T, W>& walk) {
  walk.next_x = a.signal.x.address<T>(p.b, p.begin, p.d);
  walk.next_dy = a.dy.address<T>(p.b, p.begin, p.d);
  if (a.dx) walk.next_dx = a.dx.address<T>(p.b, p.begin, p.d);
  walk.ring.rewind();
  FLA_NO_UNROLL
  for (int batch = 0; batch < kBatches; ++batch) {
    FLA_UNROLL
    for (int u = 0; u < kBatch; ++u) refill(a, p, batch * kBatch + u, u, walk);
    async_commit();
    walk.ring.advance();
  }
  load_past<T>(a.signal, sequence, p.b, p.begin, p.d, walk.past);
  // Plain batches: every token is owned, every dx belongs to the piece and lies before the final state.
  int plain_end = p.own;
  if (a.dfinal_state && p.final_slot + plain_end > W - 1) plain_end = static_cast<int>(W - 1 - p.final_slot);
  FLA_NO_UNROLL
  for (int token = 0; token < p.own + W - 1; token += kBatch) {
    async_wait<kBatches - 1>();
    if (token >= W - 1 && token + kBatch <= plain_end) {
      FLA_UNROLL
      for (int u = 0; u < kBatch; ++u) backward_step<false>(a, p, token + u, u, walk);
    } else {
      FLA_UNROLL
      for (int u = 0; u < kBatch; ++u) backward_step<true>(a, p, token + u, u, walk);
    }
    async_commit();
    walk.ring.advance();
  }
}

// Tokens of no sequence.
template <class T>
FLA_DEVICE void clear_gradients(const ConvBackwardArgs& a, uint32_t b, uint32_t d, int64_t begin,
                                int64_t end) {
  for (int64_t t = begin; t < end; ++t) {
    if (a.dx) store(a.dx.address<T>(b, t, d), zero_vector<T, V>());
    if (a.dresidual) store(a.dresidual.address<T>(b, t, d), zero_vector<T, V>());
  }
}

template <class T, int W>
FLA_DEVICE void walk_segment(const ConvBackwardArgs& a, uint32_t b, uint32_t d, int64_t begin, int64_t end,
                             BackwardWalk<T, W>& walk) {
  int64_t from = 0;
  FLA_NO_UNROLL
  for (int64_t t = begin; t < end;) {
    const Sequence sequence = a.signal.sequences.covering(b, t, from);
    const int64_t bound = t < sequence.begin ? sequence.begin : sequence.end;
    const int64_t piece_end = bound < end ? bound : end, needed = piece_end + W - 1;
    if (t < sequence.begin) {
      clear_gradients<T>(a, b, d, t, piece_end);
      from = sequence.index;
    } else {
      const Piece p = {.index = sequence.index,
                       .begin = t,
                       .final_slot = t + a.signal.slots - sequence.end,
                       .own = static_cast<int>(piece_end - t),
                       .live = static_cast<int>((needed < sequence.end ? needed : sequence.end) - t),
                       .b = b,
                       .d = d};
      walk_piece(a, p, sequence, walk);
      from = sequence.index + 1;
    }
    t = piece_end;
  }
}

// Adds the walks of the block in order and stores its row of partial sums.
template <class T, int W>
FLA_DEVICE void store_partials(const ConvBackwardArgs& a, const BackwardWalk<T, W>& walk, int64_t group,
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

template <class T, int W>
FLA_KERNEL void FLA_BOUNDS(kBackwardThreads, 4) backward_windowed(FLA_PARAMETERS ConvBackwardArgs a) {
  const uint32_t group = blockIdx.x / a.channel_blocks, channel_block = blockIdx.x - group * a.channel_blocks;
  const uint32_t lane = threadIdx.x & ((1u << a.lane_bits) - 1);
  const uint32_t segment = group * (kBackwardThreads >> a.lane_bits) + (threadIdx.x >> a.lane_bits);
  const uint32_t b = segment / a.segments;
  const uint32_t first_channel = (channel_block << a.lane_bits) * V, d = first_channel + lane * V;
  BackwardWalk<T, W> walk = {};
  if (b < a.rows && d < a.channels) {
    load_filter(a.filter, d, walk.filter);
    const int64_t tokens = a.signal.sequences.tokens;
    const int64_t begin = static_cast<int64_t>(segment - b * a.segments) * a.steps, end = begin + a.steps;
    walk_segment(a, b, d, begin, end < tokens ? end : tokens, walk);
  }
  store_partials(a, walk, group, first_channel);
}

template <class T>
Status launch_windowed(const ConvBackwardArgs& a, const WalkPlan& p, Stream stream) {
  const int sums = kBackwardThreads * V * (static_cast<int>(a.filter.taps) + 1) * static_cast<int>(sizeof(float));
  const Launch shape = {.grid = p.blocks(),
                        .block = kBackwardThreads,
                        .shared_bytes = static_cast<size_t>(std::max(sums, Ring<T>::kTotalBytes)),
                        .stream = stream};
  if (a.filter.taps == 2) return launch<&backward_windowed<T, 2>>(shape, a);
  if (a.filter.taps == 3) return launch<&backward_windowed<T, 3>>(shape, a);
  return launch<&backward_windowed<T, 4>>(shape, a);
}

}  // namespace

Status causal_conv1d_backward_windowed(const ConvBackwardArgs& a, const WalkPlan& p, DType dtype,
                                       Stream stream) {
  return dispatch_float(
      dtype, [&](auto tag) { return launch_windowed<typename decltype(tag)::type>(a, p, stream); });
}

}  // namespace fla::detail
