// Causal convolution, forward. Traffic: x and y once, plus the residual; taps, bias and window live in
// registers.
//
// A thread walks 16 bytes of channels along a segment of one row. Loads run ahead through a ring (token_ring.cuh) that
// is filled before anything else is looked up, and keeps running across the boundaries of sequences: there the window
// is set anew, and the batch with the boundary goes token by token. All that is read twice is the W - 1 tokens before a
// segment. What does not fit (other strides, W > 4, odd channel counts) takes a thread per element.
//
// Per element 14 instructions of the 31 that the chip issues at the speed of a copy; on the way per multiprocessor,
// with 512 threads, 64 to 96 KB.
#include "common/dispatch.h"
#include "common/launch.h"
#include "common/workspace.h"
#include "conv/causal_conv1d_state.cuh"
#include "conv/causal_window.cuh"
#include "conv/conv_plan.h"
#include "conv/token_ring.cuh"
#include "fla/conv.h"
#include "fla/validate.h"

namespace fla {
namespace {

using namespace detail;

struct ForwardArgs {
  Signal signal;
  FilterOperand filter;
  TokenOperand residual, y;
  int64_t rows = 0, channels = 0;
  uint32_t segments = 0, channel_blocks = 0;
  int32_t steps = 0, lane_bits = 0;
  Silu silu = Silu::absent;
};

// The registers of a thread. kExtras: there is a residual, a mask, or both. Without, the tokens of a
// batch are straight-line code.
template <class T, int W, bool kExtras>
struct ForwardWalk {
  static constexpr int V = 16 / sizeof(T);
  Filter<W, V> filter;
  Past<W, V> past;
  TokenRing<T, V, kExtras ? 2 : 1, kForwardThreads, kForwardBatch, kForwardBatches> ring;
  const T *next_x, *next_residual;  // of the next fetch
  T* next_y;
  int64_t origin;  // first token, in the row
  int count;       // tokens
  uint32_t b, d;
};

// `token` goes to slot u of the present batch.
template <class T, int W, bool kExtras>
FLA_DEVICE void fetch(const ForwardArgs& a, int token, int u, ForwardWalk<T, W, kExtras>& walk) {
  if (token >= walk.count) return;
  walk.ring.fetch(u, 0, walk.next_x);
  walk.next_x += a.signal.x.stride_t;
  if (!kExtras || !a.residual) return;
  walk.ring.fetch(u, kExtras ? 1 : 0, walk.next_residual);
  walk.next_residual += a.residual.stride_t;
}

// Stores y of one token, or zero if it belongs to no sequence.
template <class T, int W, bool kExtras>
FLA_DEVICE void forward_step(const ForwardArgs& a, int token, int u, Silu silu, bool inside,
                             ForwardWalk<T, W, kExtras>& walk) {
  constexpr int V = 16 / sizeof(T);
  float now[V], z[V], residual[V];
  FLA_UNROLL
  for (int e = 0; e < V; ++e) residual[e] = kNoResidual;
  const auto stored = walk.ring.read(u, 0);
  if (kExtras && a.residual) unpack(walk.ring.read(u, kExtras ? 1 : 0), residual);
  fetch(a, token + walk.ring.kDepth, u, walk);
  if (kExtras) masked_token<T>(a.signal, stored, walk.b, walk.origin + token, now);
  else unpack(stored, now);
  fir(walk.filter, walk.past, now, z);
  walk.past.push(now);
  activate(z, silu, residual);
  if (inside) store_floats(walk.next_y, z);
  else store(walk.next_y, zero_vector<T, V>());
  walk.next_y += a.y.stride_t;
}

template <class T, int W, bool kExtras>
FLA_DEVICE Piece enter_piece(const ForwardArgs& a, int token, int64_t candidate, ForwardWalk<T, W, kExtras>& walk) {
  const Piece p = piece_from(a.signal.sequences, walk.b, walk.origin, token, walk.count, candidate);
  if (p.inside) load_past<T>(a.signal, p.sequence, walk.b, walk.origin + token, walk.d, walk.past);
  return p;
}

template <class T, int W, bool kExtras>
FLA_DEVICE void forward_walk(const ForwardArgs& a, ForwardWalk<T, W, kExtras>& walk) {
  constexpr int kBatch = kForwardBatch;
  walk.ring.rewind();
  FLA_NO_UNROLL
  for (int batch = 0; batch < kForwardBatches; ++batch) {
    FLA_UNROLL
    for (int u = 0; u < kBatch; ++u) fetch(a, batch * kBatch + u, u, walk);
    walk.ring.advance();
  }
  load_filter(a.filter, walk.d, walk.filter);
  Piece piece = enter_piece(a, 0, 0, walk);
  FLA_NO_UNROLL
  for (int token = 0; token < walk.count; token += kBatch) {
    walk.ring.wait();
    if (piece.inside && token + kBatch <= piece.stop) {
      with_silu(a.silu, [&](auto form) {
        FLA_UNROLL
        for (int u = 0; u < kBatch; ++u) forward_step(a, token + u, u, form.value, true, walk);
      });
    } else {
      FLA_NO_UNROLL
      for (int u = 0; u < kBatch && token + u < walk.count; ++u) {
        if (token + u == piece.stop) piece = enter_piece(a, token + u, next_candidate(piece), walk);
        forward_step(a, token + u, u, a.silu, piece.inside, walk);
      }
    }
    walk.ring.advance();
  }
}

template <class T, int W, bool kExtras>
FLA_KERNEL void FLA_BOUNDS(kForwardThreads, kForwardBlocks) forward_windowed(FLA_PARAMETERS ForwardArgs a) {
  const uint32_t group = blockIdx.x / a.channel_blocks, channel_block = blockIdx.x - group * a.channel_blocks;
  const uint32_t lane = threadIdx.x & ((1u << a.lane_bits) - 1), team = threadIdx.x >> a.lane_bits;
  const uint32_t segment = group * (kForwardThreads >> a.lane_bits) + team;
  ForwardWalk<T, W, kExtras> walk = {};
  walk.b = segment / a.segments;
  walk.d = ((channel_block << a.lane_bits) + lane) * walk.V;
  if (walk.b >= a.rows || walk.d >= a.channels) return;
  walk.origin = static_cast<int64_t>(segment - walk.b * a.segments) * a.steps;
  const int64_t left = a.signal.sequences.tokens - walk.origin;
  walk.count = left < a.steps ? static_cast<int>(left) : a.steps;
  walk.next_x = a.signal.x.address<T>(walk.b, walk.origin, walk.d);
  if (kExtras && a.residual) walk.next_residual = a.residual.address<T>(walk.b, walk.origin, walk.d);
  walk.next_y = a.y.address<T>(walk.b, walk.origin, walk.d);
  forward_walk(a, walk);
}

constexpr int kElementChannels = 32, kElementTokens = 8;
constexpr int kElementThreads = kElementChannels * kElementTokens;

FLA_KERNEL void FLA_BOUNDS(kElementThreads, 4) forward_elements(FLA_PARAMETERS ForwardArgs a) {
  const uint32_t group = blockIdx.x / a.channel_blocks, channel_block = blockIdx.x - group * a.channel_blocks;
  const int64_t d = static_cast<int64_t>(channel_block) * kElementChannels + threadIdx.x % kElementChannels;
  const int64_t token = static_cast<int64_t>(group) * kElementTokens + threadIdx.x / kElementChannels;
  const int64_t tokens = a.signal.sequences.tokens, b = token / tokens, t = token - b * tokens;
  if (b >= a.rows || d >= a.channels) return;
  const Sequence sequence = a.signal.sequences.covering(b, t);
  if (t < sequence.begin || t >= sequence.end) return a.y.write(b, t, d, 0.0f);
  const float z = fir_at(a.signal, a.filter, sequence, b, t, d);
  a.y.write(b, t, d, activate(z, a.silu, a.residual ? a.residual.read(b, t, d) : kNoResidual));
}

template <class T, bool kExtras>
Status launch_windowed(const ForwardArgs& a, const WalkPlan& p, Stream stream) {
  const auto launch_taps = [&]<int W>() {
    using Walk = ForwardWalk<T, W, kExtras>;
    return launch<&forward_windowed<T, W, kExtras>>(
        {.grid = p.blocks(),
         .block = kForwardThreads,
         .shared_bytes = decltype(Walk::ring)::kTotalBytes,
         .stream = stream},
        a);
  };
  if (a.filter.taps == 2) return launch_taps.template operator()<2>();
  if (a.filter.taps == 3) return launch_taps.template operator()<3>();
  return launch_taps.template operator()<4>();
}

Status convolve(const CausalConv1dForward& a, ForwardArgs& args, const ConvExtent& e, Stream stream) {
  const WalkPlan p = plan(a);
  args.segments = static_cast<uint32_t>(p.segments);
  args.steps = static_cast<int32_t>(p.steps);
  args.lane_bits = p.lane_bits;
  args.channel_blocks = static_cast<uint32_t>(p.channel_blocks);
  if (p.windowed) {
    return dispatch_float(a.x.dtype, [&](auto tag) {
      using T = typename decltype(tag)::type;
      return a.residual || a.mask ? launch_windowed<T, true>(args, p, stream)
                                  : launch_windowed<T, false>(args, p, stream);
    });
  }
  const int64_t channel_blocks = divide_up(e.d, kElementChannels);
  if (channel_blocks > 0x7fffffff) return launch_shape_error("channel block count", channel_blocks);
  args.channel_blocks = static_cast<uint32_t>(channel_blocks);
  return launch<&forward_elements>({.grid = channel_blocks * divide_up(e.b * e.t, kElementTokens),
                                    .block = kElementThreads,
                                    .stream = stream},
                                   args);
}

}  // namespace

Status check(const CausalConv1dForward& a) {
  const bool states = a.initial_state || a.final_state;
  if (Status s = check_filter(extent_of(a), states, a.initial_state ? "initial_state" : "final_state");
      !s.ok())
    return s;
  return check_sequences(extent_of(a), a.cu_seqlens, a.mask);
}

size_t workspace_bytes(const CausalConv1dForward&) { return 0; }

Status run(const CausalConv1dForward& a, Workspace, Stream stream) {
  if (Status s = validate(a); !s.ok()) return s;
  const ConvExtent e = extent_of(a);
  ForwardArgs args;
  args.signal = {token_operand(a.x), mask_operand(a.mask), state_operand(a.initial_state),
                 sequence_map(a.cu_seqlens, e.b, e.t), e.s};
  args.filter = filter_operand(a.weight, a.bias);
  args.residual = token_operand(a.residual);
  args.y = token_operand(a.y);
  args.rows = e.b;
  args.channels = e.d;
  args.silu = silu_form(a.activation, a.x.dtype);
  if (e.b * e.t * e.d > 0)
    if (Status s = convolve(a, args, e, stream); !s.ok()) return s;
  // Last, because it may overwrite the initial state.
  return a.final_state ? store_final_state(args.signal, state_operand(a.final_state), e, stream) : Status{};
}

}  // namespace fla
