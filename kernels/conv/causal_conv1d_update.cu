// Decode step of the causal convolution: the state shifted in place. A thread owns as many channels as fill whole
// 16-byte vectors of the state [Q, D, S] (2 channels at S = 4 in 16 bits), so that the state is read and written once in
// full vectors, for up to 4 sequences: all their loads leave together, and the filters, as many bytes as a state, are
// read once for all. Other layouts take a thread per channel and sequence. A decode step is small: its launch overlaps the
// end of the kernel before.
#include "common/alignment.h"
#include "common/dispatch.h"
#include "common/launch.h"
#include "common/ptx.cuh"
#include "common/workspace.h"
#include "conv/causal_conv1d_state.cuh"
#include "conv/causal_window.cuh"
#include "fla/conv.h"
#include "fla/validate.h"

namespace fla {
namespace {

using namespace detail;

// x, residual, y and mask: token i of row n.
struct UpdateArgs {
  TokenOperand x, residual, y;
  MaskOperand mask;
  FilterOperand filter;
  StateOperand state;
  AnyIndex indices;
  int64_t index_stride = 0, pad_slot = 0, pool = 0;
  int64_t sequences = 0, tokens = 0, channels = 0, slots = 0;
  uint32_t blocks_per_row = 1;
  int32_t sequences_each = 1;  // of a thread
  Silu silu = Silu::absent;
};

constexpr int kUpdateThreads = 128;

// Other windows leave no registers for more than one sequence.
template <int W>
constexpr int kMostSequences = W == 4 ? 4 : 1;

// The place of sequence n in the pool, -1 where it has none.
FLA_DEVICE int64_t state_place(const UpdateArgs& a, int64_t n) {
  if (!a.indices) return n;
  const int64_t q = load_index(a.indices, n * a.index_stride);
  return q == a.pad_slot || q < 0 || q >= a.pool ? -1 : q;
}

// Channels of a thread where the state is [Q, D, W] in x's dtype.
template <class T, int W>
constexpr int kUpdateChannels = W == 3 ? 16 / sizeof(T) : 16 / (W * sizeof(T));

// The tokens of sequence n at V channels; `token` is the first, or absent with all others.
template <class T, int W, int V>
FLA_DEVICE void update_sequence(const UpdateArgs& a, const Filter<W, V>& filter, uint32_t n, uint32_t d, T* slots,
                                const Vector<T, W * V>& stored, Vector<T, V> token) {
  float state[W * V];
  unpack(stored, state);
  for (int64_t i = 0; i < a.tokens; ++i) {
    float now[V], z[V], residual[V];
    if (i > 0) token = load<T, V>(a.x.address<T>(n, i, d));
    unpack(token, now);
    if (a.mask) scale(now, a.mask.read(n, i));
    Past<W, V> past;
    FLA_UNROLL
    for (int e = 0; e < V; ++e) {
      FLA_UNROLL
      for (int k = 0; k + 1 < W; ++k) past.token[k][e] = state[e * W + k] = state[e * W + k + 1];
      state[e * W + W - 1] = now[e];
      residual[e] = kNoResidual;
    }
    if (i + 1 == a.tokens) store_floats(slots, state);
    fir(filter, past, now, z);
    if (a.residual) load_floats(a.residual.data, a.residual.offset(n, i, d), residual);
    activate(z, a.silu, residual);
    store_floats(a.y.address<T>(n, i, d), z);
  }
}

template <class T, int W>
FLA_KERNEL void FLA_BOUNDS(kUpdateThreads, W == 3 ? 4 : 8) update_vectors(FLA_PARAMETERS UpdateArgs a) {
  wait_for_predecessor();
  release_dependents();
  constexpr int V = kUpdateChannels<T, W>;
  constexpr int kSequences = kMostSequences<W>;
  const uint32_t group = blockIdx.x / a.blocks_per_row, block = blockIdx.x - group * a.blocks_per_row;
  const uint32_t d = (block * kUpdateThreads + threadIdx.x) * V;
  if (d >= a.channels) return;
  const uint32_t first = group * static_cast<uint32_t>(a.sequences_each);
  const int64_t left = a.sequences - first;
  const int count = left < a.sequences_each ? static_cast<int>(left) : a.sequences_each;
  T* slots[kSequences];
  Vector<T, W * V> stored[kSequences];
  Vector<T, V> tokens[kSequences];
  FLA_UNROLL
  for (int r = 0; r < kSequences; ++r) {
    slots[r] = nullptr;
    if (r >= count) continue;
    const int64_t place = state_place(a, first + r);
    tokens[r] = load<T, V>(a.x.address<T>(first + r, 0, d));
    if (place < 0) continue;
    slots[r] = static_cast<T*>(a.state.data.data) + a.state.offset(place, d, 0);
    stored[r] = load<T, W * V>(slots[r]);
  }
  Filter<W, V> filter;
  load_filter(a.filter, d, filter);
  FLA_UNROLL
  for (int r = 0; r < kSequences; ++r) {
    if (r >= count) break;
    if (slots[r]) {
      update_sequence<T, W, V>(a, filter, first + r, d, slots[r], stored[r], tokens[r]);
    } else {
      for (int64_t i = 0; i < a.tokens; ++i) store(a.y.address<T>(first + r, i, d), zero_vector<T, V>());
    }
  }
}

FLA_KERNEL void FLA_BOUNDS(kUpdateThreads, 8) update_channels(FLA_PARAMETERS UpdateArgs a) {
  wait_for_predecessor();
  const int64_t index = static_cast<int64_t>(blockIdx.x) * kUpdateThreads + threadIdx.x;
  const int64_t n = index / a.channels, d = index - n * a.channels, taps = a.filter.taps;
  if (n >= a.sequences) return;
  const int64_t place = state_place(a, n);
  // The state with the new tokens behind it.
  const auto extended = [&](int64_t c) {
    if (c < a.slots) return a.state.read(place, d, c);
    const float value = a.x.read(n, c - a.slots, d);
    return a.mask ? value * a.mask.read(n, c - a.slots) : value;
  };
  for (int64_t i = 0; i < a.tokens; ++i) {
    if (place < 0) {
      a.y.write(n, i, d, 0.0f);
      continue;
    }
    float z = a.filter.bias_at(d);
    for (int64_t k = 0; k < taps; ++k) z = fmaf(a.filter.tap(d, k), extended(a.slots + i - (taps - 1) + k), z);
    a.y.write(n, i, d, activate(z, a.silu, a.residual ? a.residual.read(n, i, d) : kNoResidual));
  }
  // In place: slot c takes what lies further on, and c ascends.
  for (int64_t c = 0; place >= 0 && c < a.slots; ++c) a.state.write(place, d, c, extended(c + a.tokens));
}

// [N, M, D], or [N, D] of one token each.
TokenOperand rows_of_tokens(const Tensor& t) {
  if (!t || t.rank > 2) return token_operand(t);
  return {any_float(t), t.stride[0], 0, t.stride[1]};
}
MaskOperand mask_of_rows(const Tensor& t) {
  if (!t || t.rank > 1) return mask_operand(t);
  return {t.data, t.dtype, t.stride[0], 0};
}

// Several sequences a thread where that still leaves a large GPU's worth of threads (1024 on each of 128
// multiprocessors, which is how many it holds of this kernel).
int32_t sequences_each(int64_t sequences, int64_t threads_per_sequence, int32_t most) {
  int32_t each = 1;
  while (each < most && sequences * threads_per_sequence >= int64_t{2 * each} * 131072) each *= 2;
  return each;
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
    args.sequences_each = sequences_each(args.sequences, divide_up(args.channels, V), kMostSequences<W>);
    const int64_t groups = divide_up(args.sequences, args.sequences_each);
    return launch<&update_vectors<T, W>>({.grid = groups * blocks, .block = kUpdateThreads, .stream = stream, .dependent = true}, args);
  }
  return launch<&update_channels>({.grid = divide_up(args.sequences * args.channels, kUpdateThreads),
                                   .block = kUpdateThreads,
                                   .stream = stream,
                                   .dependent = true},
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
  args.x = rows_of_tokens(a.x);
  args.residual = rows_of_tokens(a.residual);
  args.y = rows_of_tokens(a.y);
  args.mask = mask_of_rows(a.mask);
  args.indices = any_index(a.conv_state_indices);
  args.index_stride = a.conv_state_indices ? a.conv_state_indices.stride[0] : 0;
  args.pad_slot = a.pad_slot;
  args.pool = a.conv_state.size[0];
  args.filter = filter_operand(a.weight, a.bias);
  args.state = state_operand(a.conv_state);
  args.sequences = a.x.size[0];
  args.tokens = a.x.rank > 2 ? a.x.size[1] : 1;
  args.channels = a.x.size[a.x.rank - 1];
  args.slots = a.conv_state.size[2];
  args.silu = silu_form(a.activation, a.x.dtype);
  if (args.sequences == 0 || args.channels == 0 || args.tokens == 0) return {};
  return dispatch_float(a.x.dtype, [&](auto tag) {
    using T = typename decltype(tag)::type;
    if (args.filter.taps == 2) return update<T, 2>(a, args, stream);
    if (args.filter.taps == 3) return update<T, 3>(a, args, stream);
    return update<T, 4>(a, args, stream);
  });
}

}  // namespace fla
