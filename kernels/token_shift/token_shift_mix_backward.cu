// The mixes of a token shift, backward. Traffic: the K gradients and x once, dx once, partial sums of dmu.
//
// A thread walks a segment of 16 bytes of channels downwards in tiles of 4 tokens, so that P of the token after a tile
// is at hand when the tile is summed. Within a tile it goes through the mixes; the gradients of the next mix are on their
// way while one is summed. dmu is summed in shared memory that each thread has to itself, [mix][channel][thread]:
// registers for all mixes would need K as a constant. The walks of a block are then added in order, one row of partial
// sums a block; the second stage is that of every parameter gradient.
#include "common/column_sum.cuh"
#include "common/dispatch.h"
#include "common/warp.cuh"
#include "common/workspace.h"
#include "fla/token_shift.h"
#include "fla/validate.h"
#include "token_shift/token_shift.cuh"

namespace fla {
namespace {

using namespace detail;

constexpr int kTile = 4;

struct MixBackwardArgs {
  TokenOperand x, dy, dx, cache, dcache_out, dcache;
  AnyFloat mu;
  int64_t mu_stride = 0, dy_stride = 0, mixes = 0;
  WalkedSequences sequences;
  WalkShape walk;
  float* partials = nullptr;  // [groups][mixes][D]
  bool dx_in_vectors = true, dcache_in_vectors = true;
  Carry carry;
  int64_t tile_blocks = 0;
};

// P[p] of one token.
template <class Channels>
FLA_DEVICE void passed_back(const MixBackwardArgs& a, const WalkPlace& at, int64_t p, float (&sum)[Channels::V]) {
  constexpr int V = Channels::V;
  FLA_UNROLL
  for (int e = 0; e < V; ++e) sum[e] = 0.0f;
  for (int64_t k = 0; k < a.mixes; ++k) {
    float mu[V], dy[V];
    load_floats(a.mu, k * a.mu_stride + at.d, mu);
    unpack(Channels::load(a.dy, a.dy.offset(at.b, p, at.d) + k * a.dy_stride), dy);
    FLA_UNROLL
    for (int e = 0; e < V; ++e) sum[e] = fmaf(dy[e], mu[e], sum[e]);
  }
}

template <class Channels>
FLA_DEVICE void load_mix(const MixBackwardArgs& a, int64_t offset, uint32_t present,
                         typename Channels::Row (&rows)[kTile]) {
  FLA_UNROLL
  for (int u = 0; u < kTile; ++u) {
    rows[u] = {};
    if (present >> u & 1) rows[u] = Channels::load(a.dy, offset);
    offset += a.dy.stride_t;
  }
}

// The tokens of one tile, and what comes to them from behind.
template <class Channels>
struct MixTile {
  static constexpr int V = Channels::V;
  float delta[kTile][V], dx[kTile][V];
  uint32_t present, starts;  // tokens that belong to a sequence, and the first of one
};

// prev - x of every token that there is; the gradient that the last token of a sequence gets from its cache_out.
template <class Channels>
FLA_DEVICE void load_tile(const MixBackwardArgs& a, const WalkPlace& at, int64_t first, int count,
                          const TileEdges& edges, const float (&next)[Channels::V], MixTile<Channels>& tile) {
  constexpr int V = Channels::V;
  typename Channels::Row rows[kTile + 1];
  int64_t offset = a.x.offset(at.b, first, at.d);
  rows[0] = {};
  if (first > 0) rows[0] = Channels::load(a.x, offset - a.x.stride_t);
  FLA_UNROLL
  for (int u = 0; u < kTile; ++u) {
    rows[u + 1] = {};
    if (u < count) rows[u + 1] = Channels::load(a.x, offset);
    offset += a.x.stride_t;
  }
  FLA_UNROLL
  for (int u = 0; u < kTile; ++u) {
    float before[V], now[V];
    unpack(rows[u], before);
    unpack(rows[u + 1], now);
    if (edges.starts >> u & 1) {
      typename Channels::Row edge = {};
      if (a.cache) edge = Channels::load(a.cache, a.cache.offset(0, a.sequences.covering(at.b, first + u).index, at.d));
      unpack(edge, before);
    }
    const bool behind = u + 1 == count;  // the token after this one is the next tile's
    FLA_UNROLL
    for (int e = 0; e < V; ++e) {
      tile.delta[u][e] = tile.present >> u & 1 ? before[e] - now[e] : 0.0f;
      tile.dx[u][e] = behind && (tile.present >> u & 1) ? next[e] : 0.0f;
    }
  }
}

// Adds mix k to dx and to what token 0 passes back; its part of dmu goes to the thread's slots.
template <class Channels>
FLA_DEVICE void add_mix(const typename Channels::Row (&rows)[kTile], const float (&mu)[Channels::V],
                        MixTile<Channels>& tile, float (&passed)[Channels::V], float* slots) {
  constexpr int V = Channels::V;
  float dmu[V];
  FLA_UNROLL
  for (int e = 0; e < V; ++e) dmu[e] = 0.0f;
  FLA_UNROLL
  for (int u = 0; u < kTile; ++u) {
    float dy[V];
    unpack(rows[u], dy);
    FLA_UNROLL
    for (int e = 0; e < V; ++e) {
      tile.dx[u][e] = fmaf(dy[e], 1.0f - mu[e], tile.dx[u][e]);
      dmu[e] = fmaf(dy[e], tile.delta[u][e], dmu[e]);
    }
    if (u == 0) {
      FLA_UNROLL
      for (int e = 0; e < V; ++e) passed[e] = fmaf(dy[e], mu[e], passed[e]);
    } else if ((tile.present & ~tile.starts) >> u & 1) {
      FLA_UNROLL
      for (int e = 0; e < V; ++e) tile.dx[u - 1][e] = fmaf(dy[e], mu[e], tile.dx[u - 1][e]);
    }
  }
  if (!slots) return;
  FLA_UNROLL
  for (int e = 0; e < V; ++e)
    store_float(slots + e * kShiftThreads, load_float(slots + e * kShiftThreads) + dmu[e]);
}

// What the cache gets from the first token of each sequence, and each last token from the cache after it.
template <class Channels>
FLA_DEVICE void pass_edges(const MixBackwardArgs& a, const WalkPlace& at, int64_t first, int count,
                           const TileEdges& edges, MixTile<Channels>& tile) {
  constexpr int V = Channels::V;
  FLA_NO_UNROLL
  for (int u = 0; u < count; ++u) {
    const Sequence s = a.sequences.covering(at.b, first + u);
    if (!contains(s, first + u)) continue;
    if ((edges.starts >> u & 1) && a.dcache) {
      float passed[V];
      passed_back<Channels>(a, at, first + u, passed);
      store_channels<Channels>(a.dcache, a.dcache_in_vectors, a.dcache.offset(0, s.index, at.d), passed);
    }
    if (first + u + 1 != s.end || !a.dcache_out) continue;
    float last[V];
    unpack(Channels::load(a.dcache_out, a.dcache_out.offset(0, s.index, at.d)), last);
    FLA_UNROLL
    for (int v = 0; v < kTile; ++v) {
      FLA_UNROLL
      for (int e = 0; e < V; ++e) tile.dx[v][e] += v == u ? last[e] : 0.0f;
    }
  }
}

// One tile; `next` is what the token after it passes back, and becomes what its first token passes back.
template <class Channels>
FLA_DEVICE void backward_tile(const MixBackwardArgs& a, const WalkPlace& at, int64_t first, int count,
                              float (&next)[Channels::V], float* slots) {
  constexpr int V = Channels::V;
  const TileEdges edges = tile_edges(a.sequences, at.b, first, count);
  MixTile<Channels> tile;
  tile.starts = edges.starts;
  tile.present = ((1u << count) - 1) & ~edges.outside;
  int64_t offset = a.dy.offset(at.b, first, at.d);
  typename Channels::Row ahead[kTile], rows[kTile];
  if (a.mixes > 0) load_mix<Channels>(a, offset, tile.present, ahead);
  load_tile<Channels>(a, at, first, count, edges, next, tile);
  const Sequence last = a.sequences.covering(at.b, first + count - 1);
  const bool at_end = edges.starts || edges.outside || last.end == first + count;
  if (at_end) pass_edges<Channels>(a, at, first, count, edges, tile);
  FLA_UNROLL
  for (int e = 0; e < V; ++e) next[e] = 0.0f;
  FLA_NO_UNROLL
  for (int64_t k = 0; k < a.mixes; ++k) {
    FLA_UNROLL
    for (int u = 0; u < kTile; ++u) rows[u] = ahead[u];
    offset += a.dy_stride;
    if (k + 1 < a.mixes) load_mix<Channels>(a, offset, tile.present, ahead);
    float mu[V];
    load_floats(a.mu, k * a.mu_stride + at.d, mu);
    add_mix<Channels>(rows, mu, tile, next, slots ? slots + k * V * kShiftThreads : nullptr);
  }
  if (!((tile.present & ~tile.starts) & 1)) {  // nothing, or to the cache and not to the token before
    FLA_UNROLL
    for (int e = 0; e < V; ++e) next[e] = 0.0f;
  }
  if (!a.dx) return;
  FLA_UNROLL
  for (int u = 0; u < kTile; ++u) {
    if (u >= count) break;
    FLA_UNROLL
    for (int e = 0; e < V; ++e) tile.dx[u][e] = tile.present >> u & 1 ? tile.dx[u][e] : 0.0f;
    store_channels<Channels>(a.dx, a.dx_in_vectors, a.dx.offset(at.b, first + u, at.d), tile.dx[u]);
  }
}

// Adds up the walks of a block, in order.
template <class Channels>
FLA_DEVICE void store_partials(const MixBackwardArgs& a, const WalkPlace& at) {
  constexpr int V = Channels::V;
  const float* sums = shared_memory<float>();
  const int lanes = 1 << a.walk.lane_bits, walks = kShiftThreads >> a.walk.lane_bits;
  const auto lane = static_cast<int>(threadIdx.x) & (lanes - 1);
  for (int64_t k = at.walk; k < a.mixes; k += walks) {
    float total[V];
    FLA_UNROLL
    for (int e = 0; e < V; ++e) {
      const float* slots = sums + (k * V + e) * kShiftThreads + lane;
      total[e] = load_float(slots);
      for (int w = 1; w < walks; ++w) total[e] += load_float(slots + w * lanes);
    }
    store_floats(a.partials + (at.group * a.mixes + k) * a.walk.channels + at.d, total);
  }
}

template <class Channels>
FLA_KERNEL void FLA_BOUNDS(kShiftThreads, 3) mix_backward_kernel(FLA_PARAMETERS MixBackwardArgs a) {
  constexpr int V = Channels::V;
  if (blockIdx.x >= a.tile_blocks) return carry<Channels>(a.carry, blockIdx.x - a.tile_blocks);
  const WalkPlace at = walk_place(a.walk, V);
  float* slots = a.partials ? shared_memory<float>() + threadIdx.x : nullptr;
  for (int64_t i = 0; slots && i < a.mixes * V; ++i) store_float(slots + i * kShiftThreads, 0.0f);
  if (at.inside && at.count > 0) {
    float next[V] = {};
    const int64_t end = at.first + at.count;
    if (end < a.walk.tokens) {
      const Sequence s = a.sequences.covering(at.b, end);
      if (s.begin < end && contains(s, end)) passed_back<Channels>(a, at, end, next);
    }
    for (int from = (at.count - 1) / kTile * kTile; from >= 0; from -= kTile) {
      const int count = at.count - from < kTile ? at.count - from : kTile;
      backward_tile<Channels>(a, at, at.first + from, count, next, slots);
    }
  }
  if (!a.partials) return;
  block_barrier();
  if (at.d < a.walk.channels) store_partials<Channels>(a, at);
}

// Long segments keep the partial sums and the K rows that are read twice under 2 % of the traffic each.
constexpr int64_t kLongestSegment = 256, kShortestSegment = 16, kThreadsWanted = 65536;

int64_t segment_steps(int64_t rows, int64_t tokens, int64_t vectors) {
  int64_t steps = kLongestSegment;
  while (steps > kShortestSegment && rows * divide_up(tokens, steps) * vectors < kThreadsWanted) steps /= 2;
  return steps;
}

bool vectors_fit(const TokenShiftMixBackward& a) {
  const int64_t width = 16 / size_of(a.x.dtype);
  bool fit = rows_allow(a.mu, width);
  for (const Tensor* t : {&a.x, &a.cache, &a.dy, &a.dcache_out}) fit &= channels_allow(*t, width);
  return fit;
}

// Decided by the inputs alone: which gradients are asked for, and where they go, must not change the bits of any.
Status plan(WalkPlan& p, const TokenShiftMixBackward& a) {
  const int64_t rows = rows_of(a.x), tokens = tokens_of(a.x), channels = a.x.size[a.x.rank - 1];
  const int64_t steps = segment_steps(rows, tokens, divide_up(channels * size_of(a.x.dtype), 16));
  return plan_shift(p, vectors_fit(a), a.x.dtype, rows, tokens, channels, steps);
}

template <class Channels>
Status launch_mix(MixBackwardArgs& a, const WalkPlan& p, Stream stream) {
  const int64_t tiles = a.walk.tokens > 0 && a.walk.rows > 0 ? p.blocks() : 0;
  const int64_t blocks = tiles + carry_blocks(a.carry, Channels::V);
  a.tile_blocks = tiles;
  if (blocks == 0) return {};
  const size_t shared = a.partials ? static_cast<size_t>(a.mixes) * Channels::V * kShiftThreads * sizeof(float) : 0;
  return launch<&mix_backward_kernel<Channels>>(
      {.grid = blocks, .block = kShiftThreads, .shared_bytes = shared, .stream = stream}, a);
}

}  // namespace

Status check(const TokenShiftMixBackward& a) {
  if (!a.dx && !a.dmu && !a.dcache) return error(StatusCode::invalid_argument, "dx: no output is asked for");
  if (Status s = check_mixes(a.mu); !s.ok()) return s;
  return check_packed(a.cu_seqlens, rows_of(a.x));
}

size_t workspace_bytes(const TokenShiftMixBackward& a) {
  WalkPlan p;
  if (!a.dmu || a.x.rank < 2 || !plan(p, a).ok()) return 0;
  return align_workspace(static_cast<size_t>(p.groups * count(a.mu)) * sizeof(float));
}

Status run(const TokenShiftMixBackward& a, Workspace workspace, Stream stream) {
  if (Status s = validate(a); !s.ok()) return s;
  if (Status s = check_workspace(workspace, workspace_bytes(a)); !s.ok()) return s;
  WalkPlan p;
  if (Status s = plan(p, a); !s.ok()) return s;
  const int64_t rows = rows_of(a.x), tokens = tokens_of(a.x), channels = a.x.size[a.x.rank - 1];
  const Tensor one = first_mix(a.dy);
  MixBackwardArgs args;
  args.x = token_operand(a.x);
  args.dy = token_operand(one);
  args.dx = token_operand(a.dx);
  args.cache = token_operand(a.cache);
  args.dcache_out = token_operand(a.dcache_out);
  args.dcache = token_operand(a.dcache);
  args.mu = any_float(a.mu);
  args.mu_stride = a.mu.stride[0];
  args.dy_stride = a.dy.stride[0];
  args.mixes = a.mu.size[0];
  args.sequences = {sequence_map(a.cu_seqlens, rows, tokens)};
  args.dx_in_vectors = channels_allow(a.dx, p.vector);
  args.dcache_in_vectors = channels_allow(a.dcache, p.vector);
  args.walk = walk_shape(p, rows, tokens, channels);
  args.carry = {args.x, args.dcache_out, args.dcache, args.sequences, channels, true,
                args.dcache_in_vectors};
  const int64_t parts = rows * tokens > 0 ? p.groups : 0;
  if (a.dmu && parts > 0) args.partials = static_cast<float*>(workspace.data);
  if (channels == 0) return {};
  const Status s = !p.vectors ? launch_mix<SingleChannels>(args, p, stream)
                              : dispatch_float(a.x.dtype, [&](auto tag) {
                                  return launch_mix<VectorChannels<typename decltype(tag)::type>>(args, p, stream);
                                });
  if (!s.ok()) return s;
  return finish_columns(column_target(args.partials, a.dmu), parts, stream);
}

}  // namespace fla
