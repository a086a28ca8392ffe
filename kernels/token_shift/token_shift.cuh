// What the token shifts share: how a thread reaches its channels, which tokens of its tile are not simply a
// neighbour's, and what is carried over the ends of sequences.
#pragma once

#include "common/launch.h"
#include "common/sequence.cuh"
#include "common/walk_plan.h"
#include "fla/token_shift.h"

namespace fla::detail {

// Whole vectors of contiguous channels of one dtype, or single channels of any stride and dtype.
template <class T>
struct VectorChannels {
  static constexpr int V = 16 / sizeof(T);
  using Row = Vector<T, V>;
  static FLA_DEVICE Row load(const TokenOperand& from, int64_t offset) {
    return detail::load<T, V>(static_cast<const T*>(from.data.data) + offset);
  }
  static FLA_DEVICE void store(const TokenOperand& to, int64_t offset, const float (&values)[V]) {
    store_floats(static_cast<T*>(to.data.data) + offset, values);
  }
};
struct SingleChannels {
  static constexpr int V = 1;
  using Row = Vector<float, 1>;
  static FLA_DEVICE Row load(const TokenOperand& from, int64_t offset) {
    const float value[1] = {load_float(from.data, offset)};
    return pack<float, 1>(value);
  }
  static FLA_DEVICE void store(const TokenOperand& to, int64_t offset, const float (&values)[1]) {
    store_float(to.data, offset, values[0]);
  }
};

// Where outputs do not decide the mapping, those that vectors do not fit are written channel by channel.
template <class Channels>
FLA_DEVICE void store_channels(const TokenOperand& to, bool in_vectors, int64_t offset,
                               const float (&values)[Channels::V]) {
  if (in_vectors) return Channels::store(to, offset, values);
  FLA_UNROLL
  for (int e = 0; e < Channels::V; ++e) store_float(to.data, offset + e * to.stride_d, values[e]);
}

// Sequences as a walk meets them: token p of a reversed walk is token tokens - 1 - p of the row.
struct WalkedSequences {
  SequenceMap map;
  bool reversed = false;

  FLA_DEVICE Sequence as_walked(const Sequence& s) const {
    return reversed ? Sequence{s.index, map.tokens - s.end, map.tokens - s.begin} : s;
  }
  FLA_DEVICE Sequence at(int64_t n) const { return as_walked(map.at(n)); }
  // Contains token p, if any sequence does.
  FLA_DEVICE Sequence covering(int64_t b, int64_t p) const {
    return as_walked(map.covering(b, reversed ? map.tokens - 1 - p : p));
  }
};

FLA_DEVICE bool contains(const Sequence& s, int64_t p) { return s.begin <= p && p < s.end; }

// Which of the tokens [first, first + count) are the first of their sequence, and which belong to none; a bit each.
struct TileEdges {
  uint32_t starts = 0, outside = 0;
};

FLA_DEVICE TileEdges tile_edges(const WalkedSequences& sequences, int64_t b, int64_t first, int count) {
  TileEdges edges;
  Sequence s = sequences.covering(b, first);
  if (s.begin < first && first + count <= s.end) return edges;
  FLA_NO_UNROLL
  for (int u = 0; u < count; ++u) {
    const int64_t p = first + u;
    if (!contains(s, p)) s = sequences.covering(b, p);
    if (!contains(s, p)) edges.outside |= 1u << u;
    else if (s.begin == p) edges.starts |= 1u << u;
  }
  return edges;
}

// out[n] = the last token of sequence n, or in[n] where it has none: what the next call needs. in and out are
// [N, D]: token n of row 0.
struct Carry {
  TokenOperand tokens, in, out;
  WalkedSequences sequences;
  int64_t channels = 0;
  bool empty_only = false;   // tokens have been seen to
  bool in_vectors = true;    // out fits them
};

inline constexpr int kShiftThreads = 128, kShiftLanes = 32;

// Blocks that carry() needs.
inline int64_t carry_blocks(const Carry& c, int vector) {
  const int64_t threads = c.out ? c.sequences.map.count * divide_up(c.channels, vector) : 0;
  return divide_up(threads, kShiftThreads);
}

template <class Channels>
FLA_DEVICE void carry(const Carry& c, int64_t block) {
  constexpr int V = Channels::V;
  const int64_t per_sequence = (c.channels + V - 1) / V, index = block * kShiftThreads + threadIdx.x;
  const int64_t n = index / per_sequence, d = (index - n * per_sequence) * V;
  if (n >= c.sequences.map.count) return;
  const Sequence s = c.sequences.at(n);
  float values[V] = {};
  if (s.begin < s.end) {
    if (c.empty_only) return;
    unpack(Channels::load(c.tokens, c.tokens.offset(c.sequences.map.row_of(n), s.end - 1, d)), values);
  } else if (c.in) {
    unpack(Channels::load(c.in, c.in.offset(0, n, d)), values);
  }
  store_channels<Channels>(c.out, c.in_vectors, c.out.offset(0, n, d), values);
}

// Where a thread of a walk stands: segments of `steps` tokens, counted over all rows.
struct WalkPlace {
  uint32_t group, walk, b, d;
  int64_t first;
  int count;  // tokens that exist
  bool inside;
};

struct WalkShape {
  int64_t rows = 0, channels = 0, tokens = 0;
  uint32_t segments = 0, channel_blocks = 0;
  int32_t lane_bits = 0, steps = 0;
};

inline WalkShape walk_shape(const WalkPlan& p, int64_t rows, int64_t tokens, int64_t channels) {
  return {rows, channels, tokens, static_cast<uint32_t>(p.segments), static_cast<uint32_t>(p.channel_blocks),
          p.lane_bits, static_cast<int32_t>(p.steps)};
}

FLA_DEVICE WalkPlace walk_place(const WalkShape& a, int vector) {
  WalkPlace at;
  at.group = blockIdx.x / a.channel_blocks;
  const uint32_t channel_block = blockIdx.x - at.group * a.channel_blocks;
  const uint32_t lane = threadIdx.x & ((1u << a.lane_bits) - 1);
  at.walk = threadIdx.x >> a.lane_bits;
  const uint32_t segment = at.group * (kShiftThreads >> a.lane_bits) + at.walk;
  at.b = segment / a.segments;
  at.d = ((channel_block << a.lane_bits) + lane) * static_cast<uint32_t>(vector);
  at.inside = at.b < a.rows && at.d < a.channels;
  at.first = static_cast<int64_t>(segment - at.b * a.segments) * a.steps;
  const int64_t left = a.tokens - at.first;
  at.count = left < a.steps ? static_cast<int>(left) : a.steps;
  return at;
}

// Of [B, T, D] or [T, D].
inline int64_t tokens_of(const Tensor& t) { return t.size[t.rank - 2]; }
inline int64_t rows_of(const Tensor& t) { return t.rank > 2 ? t.size[0] : 1; }

// Output 0 of [K, B, T, D] or [K, T, D].
inline Tensor first_mix(const Tensor& t) {
  Tensor one = t;
  --one.rank;
  for (int i = 0; i < one.rank; ++i) {
    one.size[i] = t.size[i + 1];
    one.stride[i] = t.stride[i + 1];
  }
  return one;
}

inline Status check_mixes(const Tensor& mu) {
  if (mu.size[0] <= kMostShiftMixes) return {};
  return error(StatusCode::unsupported_shape, "mu: K = %lld mixes, at most %lld",
               static_cast<long long>(mu.size[0]), static_cast<long long>(kMostShiftMixes));
}

// Vectors where every tensor allows them, else single channels; too many segments for 32 bits are refused.
inline Status plan_shift(WalkPlan& p, bool vectors, DType dtype, int64_t b, int64_t t, int64_t d, int64_t steps) {
  const int width = vectors ? static_cast<int>(16 / size_of(dtype)) : 1;
  p = plan_walks(b, t, d, width, kShiftThreads, kShiftLanes, steps);
  if (!p.vectors) return launch_shape_error("segment count", b * p.segments);
  p.vectors = vectors;
  return {};
}

}  // namespace fla::detail
