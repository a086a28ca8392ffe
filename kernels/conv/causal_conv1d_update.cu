// Decode step of the causal convolution: one token per sequence, the state shifted in place. A thread owns as
// many channels as fill whole 16-byte vectors of the state [N, D, S] (2 channels at S = 4 in 16 bits), so
// that the state is read and written once in full vectors. Other layouts take a thread per channel.
#include "common/alignment.h"
#include "common/dispatch.h"
#include "common/launch.h"
#include "common/workspace.h"
#include "conv/causal_conv1d_state.cuh"
#include "conv/causal_window.cuh"
#include "fla/conv.h"
#include "fla/validate.h"

namespace fla {
namespace {

using namespace detail;

// x, residual and y are [N, D], rows of one token each: token n of row 0.
struct UpdateArgs {
  TokenOperand x, residual, y;
  MaskOperand mask;
  FilterOperand filter;
  StateOperand state;
  int64_t sequences = 0, channels = 0, slots = 0;
  uint32_t blocks_per_row = 1;
  Silu silu = Silu::absent;
};

constexpr int kUpdateThreads = 128;

// Channels of a thread where the state is [N, D, W] in x's dtype.
template <class T, int W>
constexpr int kUpdateChannels = W == 3 ? 16 / sizeof(T) : 16 / (W * sizeof(T));

template <class T, int W>
FLA_KERNEL void FLA_BOUNDS(kUpdateThreads, W == 3 ? 4 : 8) update_vectors(FLA_PARAMETERS UpdateArgs a) {
  constexpr int V = kUpdateChannels<T, W>;
  const uint32_t n = blockIdx.x / a.blocks_per_row, block = blockIdx.x - n * a.blocks_per_row;
  const uint32_t d = (block * kUpdateThreads + threadIdx.x) * V;
  if (d >= a.channels) return;
  T* slots = static_cast<T*>(a.state.data.data) + a.state.offset(n, d, 0);
  const auto stored = load<T, W * V>(slots);
  const auto token = load<T, V>(a.x.address<T>(0, n, d));
  Filter<W, V> filter;
  load_filter(a.filter, d, filter);
  float state[W * V], now[V], z[V], residual[V];
  unpack(stored, state);
  unpack(token, now);
  if (a.mask) scale(now, a.mask.read(0, n));
  Past<W, V> past;
  FLA_UNROLL
  for (int e = 0; e < V; ++e) {
    FLA_UNROLL
    for (int k = 0; k + 1 < W; ++k) past.token[k][e] = state[e * W + k] = state[e * W + k + 1];
    state[e * W + W - 1] = now[e];
    residual[e] = kNoResidual;
  }
  store_floats(slots, state);
  fir(filter, past, now, z);
  if (a.residual) load_floats(a.residual.data, a.residual.offset(0, n, d), residual);
  activate(z, a.silu, residual);
  store_floats(a.y.address<T>(0, n, d), z);
}

FLA_KERNEL void FLA_BOUNDS(kUpdateThreads, 8) update_channels(FLA_PARAMETERS UpdateArgs a) {
  const int64_t index = static_cast<int64_t>(blockIdx.x) * kUpdateThreads + threadIdx.x;
  const int64_t n = index / a.channels, d = index - n * a.channels, taps = a.filter.taps;
  if (n >= a.sequences) return;
  float now = a.x.read(0, n, d), z = a.filter.bias_at(d);
  if (a.mask) now *= a.mask.read(0, n);
  // Before the shift: tap k finds its token one slot further on, which exists also where S = W - 1.
  for (int64_t k = 0; k + 1 < taps; ++k)
    z = fmaf(a.filter.tap(d, k), a.state.read(n, d, a.slots - taps + 1 + k), z);
  z = fmaf(a.filter.tap(d, taps - 1), now, z);
  for (int64_t c = 0; c + 1 < a.slots; ++c) a.state.write(n, d, c, a.state.read(n, d, c + 1));
  if (a.slots > 0) a.state.write(n, d, a.slots - 1, now);
  a.y.write(0, n, d, activate(z, a.silu, a.residual ? a.residual.read(0, n, d) : kNoResidual));
}

// Whether `channels` neighbouring channels of the state are whole 16-byte vectors.
bool state_is_packed(const CausalConv1dUpdate& a, int64_t taps, int64_t channels) {
  const Tensor& state = a.conv_state;
  const bool dense =
      state.size[2] == taps && state.stride[2] == 1 && (state.size[1] == 1 || state.stride[1] == taps);
  uint64_t bits = reinterpret_cast<uintptr_t>(state.data);
  if (state.size[0] > 1) bits |= static_cast<uint64_t>(state.stride[0] * size_of(state.dtype));
  return dense && state.dtype == a.x.dtype && bits % 16 == 0 && state.size[1] % channels == 0;
}

template <class T, int W>
Status update(const CausalConv1dUpdate& a, UpdateArgs& args, Stream stream) {
  constexpr int V = kUpdateChannels<T, W>;
  const bool vectors = args.filter.taps == W && state_is_packed(a, W, V) && channels_allow(a.x, V) &&
                       channels_allow(a.y, V) && channels_allow(a.residual, V) &&
                       filter_is_packed(a.weight, a.bias, V);
  const int64_t blocks = divide_up(args.channels, int64_t{kUpdateThreads} * V);
  if (vectors && args.channels <= 0x7fffffff && args.sequences <= 0x7fffffff) {
    args.blocks_per_row = static_cast<uint32_t>(blocks);
    return launch<&update_vectors<T, W>>(
        {.grid = args.sequences * blocks, .block = kUpdateThreads, .stream = stream}, args);
  }
  return launch<&update_channels>({.grid = divide_up(args.sequences * args.channels, kUpdateThreads),
                                   .block = kUpdateThreads,
                                   .stream = stream},
                                  args);
}

}  // namespace

Status check(const CausalConv1dUpdate& a) {
  return check_filter(conv_extent(a.x, a.weight, {}, a.conv_state), true, "conv_state");
}

size_t workspace_bytes(const CausalConv1dUpdate&) { return 0; }

Status run(const CausalConv1dUpdate& a, Workspace, Stream stream) {
  if (Status s = validate(a); !s.ok()) return s;
  UpdateArgs args;
  args.x = token_operand(a.x);
  args.residual = token_operand(a.residual);
  args.y = token_operand(a.y);
  args.mask = mask_operand(a.mask);
  args.filter = filter_operand(a.weight, a.bias);
  args.state = state_operand(a.conv_state);
  args.sequences = a.x.size[0];
  args.channels = a.x.size[1];
  args.slots = a.conv_state.size[2];
  args.silu = silu_form(a.activation, a.x.dtype);
  if (args.sequences == 0 || args.channels == 0) return {};
  return dispatch_float(a.x.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    if (args.filter.taps == 2) return update<T, 2>(a, args, stream);
    if (args.filter.taps == 3) return update<T, 3>(a, args, stream);
    return update<T, 4>(a, args, stream);
  });
}

}  // namespace fla
