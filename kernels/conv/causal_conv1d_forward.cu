// Causal convolution, forward. Traffic: x and y once, plus the residual; taps, bias and window live in
// registers.
//
// A thread takes 8 tokens of 16 bytes of channels. All its loads, the W - 1 tokens before included, leave
// before the first is used and before the sequence is looked up. Reading those W - 1 tokens again costs L2
// time only; longer walks, which carry the window but wait for every batch, measured slower (conv_plan.h).
// Tiles that a sequence boundary cuts go token by token. What does not fit (other strides, W > 4, odd channel
// counts) takes a thread per element.
#include "common/dispatch.h"
#include "common/launch.h"
#include "common/mutate.h"
#include "common/workspace.h"
#include "conv/causal_conv1d_state.cuh"
#include "conv/causal_window.cuh"
#include "conv/conv_plan.h"
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
  int32_t lane_bits = 0;
  Silu silu = Silu::absent;
};

// kExtras: there is a residual, a mask or groups. Without, the straight path has no branch but the
// activation's.
//
// The vectors of one thread: tokens [first, end) of channels d to d + V of row b.
template <class T, int W, bool kExtras>
struct ForwardTile {
  static constexpr int V = 16 / sizeof(T);
  Vector<T, V> before[W - 1], now[kForwardSteps], residual[kExtras ? kForwardSteps : 1];
  int64_t first;
  uint32_t b, d;
  int count;  // tokens that exist
};

template <class T, int W, bool kExtras>
FLA_DEVICE void load_tile(const ForwardArgs& a, ForwardTile<T, W, kExtras>& tile) {
  constexpr int V = 16 / sizeof(T);
  const int64_t stride = a.signal.x.stride_t;
  const T* x = a.signal.x.address<T>(tile.b, tile.first, tile.d);
  // A tile that is not the row's first has at least kForwardSteps >= W - 1 tokens before it.
  FLA_UNROLL
  for (int k = 0; k + 1 < W; ++k)
    tile.before[k] = tile.first > 0 ? load<T, V>(x - (W - 1 - k) * stride) : zero_vector<T, V>();
  FLA_UNROLL
  for (int u = 0; u < kForwardSteps; ++u) {
    tile.now[u] = u < tile.count ? load<T, V>(x) : zero_vector<T, V>();
    x += stride;
  }
  if constexpr (kExtras) {
    const int count = a.residual ? tile.count : 0;
    const T* residual = a.residual ? a.residual.address<T>(tile.b, tile.first, tile.d) : nullptr;
    FLA_UNROLL
    for (int u = 0; u < kForwardSteps; ++u)
      tile.residual[u] = u < count ? load<T, V>(residual + u * a.residual.stride_t) : zero_vector<T, V>();
  }
}

template <bool kExtras, class T, int V>
FLA_DEVICE void forward_token(const ForwardArgs& a, const Vector<T, V>& stored, uint32_t b, int64_t t,
                              float (&now)[V]) {
  if constexpr (kExtras) masked_token<T>(a.signal, stored, b, t, now);
  else unpack(stored, now);
}

// y of one token from its window, which moves on.
template <bool kExtras, class T, int W, int V>
FLA_DEVICE void forward_step(const ForwardArgs& a, const Filter<W, V>& filter, Past<W, V>& past,
                             const Vector<T, V>& stored, const Vector<T, V>& residual, uint32_t b, int64_t t,
                             T* y) {
  float now[V], z[V], added[V];
  forward_token<kExtras>(a, stored, b, t, now);
  fir(filter, past, now, z);
  past.push(now);
  unpack(residual, added);
  if (!kExtras || !a.residual) {
    FLA_UNROLL
    for (int e = 0; e < V; ++e) added[e] = kNoResidual;
  }
  activate(z, a.silu, added);
  store_floats(y, z);
}

// All tokens of the tile belong to one sequence.
template <class T, int W, int V, bool kExtras>
FLA_DEVICE void forward_whole(const ForwardArgs& a, const Filter<W, V>& filter,
                              const ForwardTile<T, W, kExtras>& tile, const Sequence& sequence) {
  Past<W, V> past;
  if (tile.first - (W - 1) >= sequence.begin) {
    FLA_UNROLL
    for (int k = 0; k + 1 < W; ++k)
      forward_token<kExtras>(a, tile.before[k], tile.b, tile.first - (W - 1) + k, past.token[k]);
  } else {
    load_past<T>(a.signal, sequence, tile.b, tile.first, tile.d, past);
  }
  T* y = a.y.address<T>(tile.b, tile.first, tile.d);
  FLA_UNROLL
  for (int u = 0; u < kForwardSteps; ++u) {
    if (FLA_MUTATE("causal_conv1d.fwd: a token past the last", u < tile.count, u <= tile.count))
      forward_step<kExtras>(a, filter, past, tile.now[u], tile.residual[kExtras ? u : 0], tile.b,
                            tile.first + u, y);
    y += a.y.stride_t;
  }
}

// Sequences begin or end inside the tile, tokens belong to none, or to several groups.
template <bool kExtras, class T, int W, int V>
FLA_DEVICE void forward_pieces(const ForwardArgs& a, const Filter<W, V>& filter, uint32_t b, uint32_t d,
                               int64_t first, int64_t end, Sequence sequence) {
  Past<W, V> past = {};
  FLA_NO_UNROLL
  for (int64_t t = first; t < end; ++t) {
    if (t >= sequence.end) sequence = a.signal.sequences.covering(b, t, sequence.index + 1);
    T* y = a.y.address<T>(b, t, d);
    if (kExtras ? !a.signal.holds(sequence, b, t) : t < sequence.begin || t >= sequence.end) {
      store(y, zero_vector<T, V>());
      continue;
    }
    if (t == first || t == sequence.begin || (kExtras && a.signal.groups))
      load_past<T, kExtras>(a.signal, sequence, b, t, d, past);
    Vector<T, V> added = {};
    if (kExtras && a.residual) added = load<T, V>(a.residual.address<T>(b, t, d));
    forward_step<kExtras>(a, filter, past, load<T, V>(a.signal.x.address<T>(b, t, d)), added, b, t, y);
  }
}

template <class T, int W, bool kExtras>
FLA_KERNEL void FLA_BOUNDS(kForwardThreads, kExtras ? 6 : 8) forward_windowed(FLA_PARAMETERS ForwardArgs a) {
  constexpr int V = 16 / sizeof(T);
  const uint32_t group = blockIdx.x / a.channel_blocks, channel_block = blockIdx.x - group * a.channel_blocks;
  const uint32_t lane = threadIdx.x & ((1u << a.lane_bits) - 1), walk = threadIdx.x >> a.lane_bits;
  const uint32_t segment = group * (kForwardThreads >> a.lane_bits) + walk, row = segment / a.segments;
  ForwardTile<T, W, kExtras> tile;
  tile.b = row;
  tile.d = ((channel_block << a.lane_bits) + lane) * V;
  if (tile.b >= a.rows) return;
  if (FLA_MUTATE("causal_conv1d.fwd: a channel past the last", tile.d >= a.channels, tile.d > a.channels)) return;
  tile.first = static_cast<int64_t>(segment - row * a.segments) * kForwardSteps;
  const int64_t left = a.signal.sequences.tokens - tile.first;
  tile.count = left < kForwardSteps ? static_cast<int>(left) : kForwardSteps;
  load_tile(a, tile);
  Filter<W, V> filter;
  load_filter(a.filter, tile.d, filter);
  const int64_t end = tile.first + tile.count;
  const Sequence sequence = a.signal.sequences.covering(tile.b, tile.first);
  const bool ends_later = FLA_MUTATE("causal_conv1d.fwd: the end of a sequence ignored", end <= sequence.end, true);
  const bool whole = sequence.begin <= tile.first && ends_later &&
                     (!kExtras || a.signal.all_joined(tile.b, tile.first - (W - 1), end));
  if (whole) forward_whole(a, filter, tile, sequence);
  else forward_pieces<kExtras, T>(a, filter, tile.b, tile.d, tile.first, end, sequence);
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
  if (!a.signal.holds(sequence, b, t)) return a.y.write(b, t, d, 0.0f);
  const float z = fir_at(a.signal, a.filter, sequence, b, t, d);
  a.y.write(b, t, d, activate(z, a.silu, a.residual ? a.residual.read(b, t, d) : kNoResidual));
}

template <class T, bool kExtras>
Status launch_windowed(const ForwardArgs& a, const WalkPlan& p, Stream stream) {
  const Launch shape = {.grid = p.blocks(), .block = kForwardThreads, .stream = stream};
  if (a.filter.taps == 2) return launch<&forward_windowed<T, 2, kExtras>>(shape, a);
  if (a.filter.taps == 3) return launch<&forward_windowed<T, 3, kExtras>>(shape, a);
  return launch<&forward_windowed<T, 4, kExtras>>(shape, a);
}

Status convolve(const CausalConv1dForward& a, ForwardArgs& args, const ConvExtent& e, Stream stream) {
  const WalkPlan p = plan(a);
  args.segments = static_cast<uint32_t>(p.segments);
  args.lane_bits = p.lane_bits;
  args.channel_blocks = static_cast<uint32_t>(p.channel_blocks);
  if (p.vectors) {
    return dispatch_float(a.x.dtype, [&](auto tag) {
      using T = typename decltype(tag)::type;
      return a.residual || a.mask || a.seq_idx ? launch_windowed<T, true>(args, p, stream)
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
  const char* state = a.initial_state ? "initial_state" : "final_state";
  if (Status s = check_filter(extent_of(a), states, state); !s.ok()) return s;
  if (Status s = check_groups(a.seq_idx, a.cu_seqlens, states, state); !s.ok()) return s;
  return check_sequences(extent_of(a), a.cu_seqlens, a.mask);
}

size_t workspace_bytes(const CausalConv1dForward&) { return 0; }

Status run(const CausalConv1dForward& a, Workspace, Stream stream) {
  if (Status s = validate(a); !s.ok()) return s;
  const ConvExtent e = extent_of(a);
  ForwardArgs args;
  args.signal = {token_operand(a.x), mask_operand(a.mask), state_operand(a.initial_state),
                 sequence_map(a.cu_seqlens, e.b, e.t), e.s, group_operand(a.seq_idx)};
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
