// Token shift, forward and backward, and the forward of its mixes. Traffic: x once and each output once.
//
// A thread takes 8 (of mixes 4) tokens of 16 bytes of channels; their loads and the one of the token before leave before the first
// is used and before the sequences are looked up, so one row in nine is read twice, from L2. The backward is the
// forward on reversed time: it walks the same kernel with negative strides. Tokens that begin a sequence (or belong to
// none) are left out of the straight path and follow one by one.
#include "common/dispatch.h"
#include "common/mutate.h"
#include "common/workspace.h"
#include "fla/token_shift.h"
#include "fla/validate.h"
#include "token_shift/token_shift.cuh"

namespace fla {
namespace {

using namespace detail;

// Fewer tokens for the mixes, whose K stores of each hide the loads: with 8 the unpacked tokens do not fit the registers.
template <bool kMix>
constexpr int kSteps = kMix ? 4 : 8;

struct ShiftArgs {
  TokenOperand from, to, edge;  // edge: [N, D], the token before the first
  AnyFloat mu;                  // [outputs, D]; of mixes
  int64_t mu_stride = 0, output_stride = 0, outputs = 1;
  WalkedSequences sequences;
  WalkShape walk;
  Carry carry;
  int64_t tile_blocks = 0;
};

// One output of one token.
template <class Channels, bool kMix>
FLA_DEVICE void store_shift(const ShiftArgs& a, const typename Channels::Row& before,
                            const typename Channels::Row& now, const float (&mu)[Channels::V], int64_t offset) {
  constexpr int V = Channels::V;
  float previous[V], x[V], y[V];
  unpack(before, previous);
  unpack(now, x);
  FLA_UNROLL
  for (int e = 0; e < V; ++e) {
    const float delta = previous[e] - x[e];
    y[e] = kMix ? fmaf(delta, mu[e], x[e]) : delta;
  }
  Channels::store(a.to, offset, y);
}

template <class Channels, bool kMix>
FLA_DEVICE void shift_edge(const ShiftArgs& a, const WalkPlace& at, int64_t p) {
  constexpr int V = Channels::V;
  const Sequence s = a.sequences.covering(at.b, p);
  typename Channels::Row before = {}, now = {};
  if (contains(s, p)) {
    now = Channels::load(a.from, a.from.offset(at.b, p, at.d));
    if (a.edge) before = Channels::load(a.edge, a.edge.offset(0, s.index, at.d));
  }
  for (int64_t k = 0; k < (kMix ? a.outputs : 1); ++k) {
    float mu[V] = {};
    if constexpr (kMix) load_floats(a.mu, k * a.mu_stride + at.d, mu);
    store_shift<Channels, kMix>(a, before, now, mu, a.to.offset(at.b, p, at.d) + k * a.output_stride);
  }
}

template <class Channels, bool kMix>
FLA_KERNEL void FLA_BOUNDS(kShiftThreads, kMix ? 5 : 8) shift_kernel(FLA_PARAMETERS ShiftArgs a) {
  constexpr int V = Channels::V, kTokens = kSteps<kMix>;
  if (blockIdx.x >= a.tile_blocks) return carry<Channels>(a.carry, blockIdx.x - a.tile_blocks);
  const WalkPlace at = walk_place(a.walk, V);
  if (!at.inside) return;
  typename Channels::Row rows[kTokens + 1];
  int64_t offset = a.from.offset(at.b, at.first, at.d);
  rows[0] = {};
  if (at.first > 0) rows[0] = Channels::load(a.from, offset - a.from.stride_t);
  FLA_UNROLL
  for (int u = 0; u < kTokens; ++u) {
    rows[u + 1] = {};
    if (u < at.count) rows[u + 1] = Channels::load(a.from, offset);
    offset += a.from.stride_t;
  }
  const TileEdges edges = tile_edges(a.sequences, at.b, at.first, at.count);
  uint32_t special = edges.starts | edges.outside;
  for (int64_t k = 0; k < (kMix ? a.outputs : 1); ++k) {
    float mu[V] = {};
    if constexpr (kMix) load_floats(a.mu, k * a.mu_stride + at.d, mu);
    int64_t to = a.to.offset(at.b, at.first, at.d) + k * a.output_stride;
    FLA_UNROLL
    for (int u = 0; u < kTokens; ++u) {
      const bool exists = FLA_MUTATE("token_shift.fwd: a token past the last", u < at.count, u <= at.count);
      if (exists && !(special >> u & 1)) store_shift<Channels, kMix>(a, rows[u], rows[u + 1], mu, to);
      to += a.to.stride_t;
    }
  }
  for (int u = 0; special; ++u, special >>= 1)
    if (special & 1) shift_edge<Channels, kMix>(a, at, at.first + u);
}

// The tokens in the order of a walk through reversed time.
TokenOperand reversed(TokenOperand t, int64_t tokens) {
  if (!t || tokens == 0) return t;
  t.data.data = static_cast<char*>(t.data.data) + (tokens - 1) * t.stride_t * size_of(t.data.dtype);
  t.stride_t = -t.stride_t;
  return t;
}

template <class Channels, bool kMix>
Status launch_shift(ShiftArgs& a, const WalkPlan& p, Stream stream) {
  const int64_t tiles = a.to && a.walk.tokens > 0 && a.walk.rows > 0 ? p.blocks() : 0;
  const int64_t carries = carry_blocks(a.carry, Channels::V);
  // In place, the carried rows wait for those that read what was there.
  const bool apart = a.carry.out && a.carry.in && a.carry.out.data.data == a.carry.in.data.data;
  a.tile_blocks = tiles;
  const auto run_blocks = [&](int64_t blocks) {
    if (blocks == 0) return Status{};
    return launch<&shift_kernel<Channels, kMix>>({.grid = blocks, .block = kShiftThreads, .stream = stream}, a);
  };
  if (!apart) return run_blocks(tiles + carries);
  if (Status s = run_blocks(tiles); !s.ok()) return s;
  a.tile_blocks = 0;
  return run_blocks(carries);
}

struct ShiftCall {
  const Tensor &from, &to, &edge, &edge_out, &cu_seqlens;
  bool backward;
};

ShiftArgs shift_args(const ShiftCall& c) {
  const int64_t rows = rows_of(c.from), tokens = tokens_of(c.from), channels = c.from.size[c.from.rank - 1];
  ShiftArgs a;
  a.from = token_operand(c.from);
  a.to = token_operand(c.to);
  a.edge = token_operand(c.edge);
  a.sequences = {sequence_map(c.cu_seqlens, rows, tokens), c.backward};
  if (c.backward) {
    a.from = reversed(a.from, tokens);
    a.to = reversed(a.to, tokens);
  }
  a.carry = {a.from, a.edge, token_operand(c.edge_out), a.sequences, channels};
  return a;
}

template <bool kMix>
Status shift(ShiftArgs& a, const ShiftCall& c, bool vectors, Stream stream) {
  const int64_t rows = rows_of(c.from), tokens = tokens_of(c.from), channels = a.carry.channels;
  if (channels == 0) return {};
  vectors &= channels_allow(c.from, 16 / size_of(c.from.dtype));
  for (const Tensor* t : {&c.to, &c.edge, &c.edge_out})
    vectors &= FLA_MUTATE("token_shift.fwd: vectors at any address",
                          channels_allow(*t, 16 / size_of(c.from.dtype)), true);
  WalkPlan p;
  if (Status s = plan_shift(p, vectors, c.from.dtype, rows, tokens, channels, kSteps<kMix>); !s.ok()) return s;
  a.walk = walk_shape(p, rows, tokens, channels);
  if (!vectors) return launch_shift<SingleChannels, kMix>(a, p, stream);
  return dispatch_float(c.from.dtype, [&](auto tag) {
    return launch_shift<VectorChannels<typename decltype(tag)::type>, kMix>(a, p, stream);
  });
}

}  // namespace

Status check(const TokenShiftForward& a) { return check_packed(a.cu_seqlens, rows_of(a.x)); }
Status check(const TokenShiftBackward& a) {
  if (!a.dx && !a.dcache) return error(StatusCode::invalid_argument, "dx: no output is asked for");
  return check_packed(a.cu_seqlens, rows_of(a.dy));
}
Status check(const TokenShiftMixForward& a) {
  if (Status s = check_mixes(a.mu); !s.ok()) return s;
  return check_packed(a.cu_seqlens, rows_of(a.x));
}

size_t workspace_bytes(const TokenShiftForward&) { return 0; }
size_t workspace_bytes(const TokenShiftBackward&) { return 0; }
size_t workspace_bytes(const TokenShiftMixForward&) { return 0; }

Status run(const TokenShiftForward& a, Workspace, Stream stream) {
  if (Status s = validate(a); !s.ok()) return s;
  const ShiftCall call{a.x, a.y, a.cache, a.cache_out, a.cu_seqlens, false};
  ShiftArgs args = shift_args(call);
  return shift<false>(args, call, true, stream);
}

Status run(const TokenShiftBackward& a, Workspace, Stream stream) {
  if (Status s = validate(a); !s.ok()) return s;
  const ShiftCall call{a.dy, a.dx, a.dcache_out, a.dcache, a.cu_seqlens, true};
  ShiftArgs args = shift_args(call);
  return shift<false>(args, call, true, stream);
}

Status run(const TokenShiftMixForward& a, Workspace, Stream stream) {
  if (Status s = validate(a); !s.ok()) return s;
  const Tensor one = first_mix(a.y);
  const ShiftCall call{a.x, one, a.cache, a.cache_out, a.cu_seqlens, false};
  ShiftArgs args = shift_args(call);
  args.mu = any_float(a.mu);
  args.mu_stride = a.mu.stride[0];
  args.output_stride = a.y.stride[0];
  args.outputs = a.mu.size[0];
  const int64_t width = 16 / size_of(a.x.dtype);
  return shift<true>(args, call, rows_allow(a.mu, width) && channels_allow(a.y, width), stream);
}

}  // namespace fla
