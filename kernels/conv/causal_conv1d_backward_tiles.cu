// Causal convolution, backward, for any W, strides and dtypes. A block takes 64 tokens of 32 channels. It
// walks g over the tile and the W - 1 tokens after it in chunks that fit shared memory; the first chunk,
// which is the tile, also gives the parameter sums. W operations per element for each of z, dx and dweight,
// whatever W is.
#include "common/launch.h"
#include "common/warp.cuh"
#include "conv/causal_conv1d_backward.cuh"
#include "conv/causal_conv1d_gradient.cuh"

namespace fla::detail {
namespace {

constexpr int kThreads = kTileChannels * kTileLanes, kPerLane = kTileTokens / kTileLanes;

struct GradientTile {
  float g[kTileTokens][kTileChannels];
  int64_t begin[kTileTokens];  // where the token's sequence begins; beyond any token: it has none
  int32_t group[kTileTokens];  // by seq_idx; -1: the token gives no gradient
};

struct TilePlace {
  int64_t b, d, first, end;  // tokens [first, end) of row b
  int channel, lane;
  bool active;  // the channel exists
};

constexpr int64_t kNoSequence = int64_t{1} << 62;

// g of the tokens [start, start + kTileTokens) of the row, zero where there is none.
FLA_DEVICE void fill_gradients(const ConvBackwardArgs& a, const TilePlace& p, int64_t start,
                               GradientTile& tile) {
  const int64_t tokens = a.signal.sequences.tokens;
  for (int i = 0; i < kPerLane; ++i) {
    const int row = p.lane + i * kTileLanes;
    const int64_t t = start + row;
    float g = 0.0f;
    int64_t begin = kNoSequence;
    int32_t group = -1;
    if (t < tokens) {
      const Sequence sequence = a.signal.sequences.covering(p.b, t);
      // Padding stands in the middle of what may be one group.
      if (t >= sequence.begin && t < sequence.end) begin = sequence.begin;
      if (a.signal.holds(sequence, p.b, t)) {
        group = a.signal.groups ? static_cast<int32_t>(a.signal.groups.read(p.b, t)) : 0;
        if (p.active) g = gradient_at(a, sequence, p.b, t, p.d);
      }
    }
    tile.g[row][p.channel] = g;
    if (p.channel != 0) continue;
    tile.begin[row] = begin;
    tile.group[row] = group;
  }
}

// A lane sums every eighth tap over the tokens of the tile; tap W is the bias.
FLA_DEVICE void sum_parameters(const ConvBackwardArgs& a, const TilePlace& p, int64_t group,
                               const GradientTile& tile) {
  const int64_t taps = a.filter.taps;
  for (int64_t k = p.lane; k <= taps; k += kTileLanes) {
    float* out = k < taps ? a.weight_partials : a.bias_partials;
    if (!out) continue;
    float sum = 0.0f;
    for (int64_t t = p.first; t < p.end; ++t) {
      const int row = static_cast<int>(t - p.first);
      if (tile.group[row] < 0) continue;
      const float g = tile.g[row][p.channel];
      if (k == taps) {
        sum += g;
        continue;
      }
      const int64_t from = t - (taps - 1) + k;
      // Tokens before the sequence's begin need its number, for the state.
      const Sequence sequence =
          from >= tile.begin[row] ? Sequence{0, tile.begin[row], p.end} : a.signal.sequences.covering(p.b, t);
      sum = fmaf(g, a.signal.seen(sequence, p.b, t, from, p.d), sum);
    }
    const int64_t column = k < taps ? p.d * taps + k : p.d,
                  columns = k < taps ? a.channels * taps : a.channels;
    store_float(out + group * columns + column, sum);
  }
}

// Adds to dx what the g of the chunk that starts at `start` give.
FLA_DEVICE void add_chunk(const ConvBackwardArgs& a, const TilePlace& p, int64_t start,
                          const GradientTile& tile, float (&dx)[kPerLane]) {
  const int64_t taps = a.filter.taps;
  FLA_UNROLL
  for (int i = 0; i < kPerLane; ++i) {
    const int64_t t = p.first + p.lane + i * kTileLanes;
    if (t >= p.end) break;
    const int64_t last = t + taps < start + kTileTokens ? t + taps : start + kTileTokens;
    const int64_t group = a.signal.groups ? a.signal.groups.read(p.b, t) : 0;
    for (int64_t from = t > start ? t : start; from < last; ++from) {
      const int row = static_cast<int>(from - start);
      // A later token whose sequence began at or before t is in t's sequence.
      if (tile.begin[row] > t) break;
      if (tile.group[row] != group) continue;
      dx[i] = fmaf(a.filter.tap(p.d, taps - 1 - (from - t)), tile.g[row][p.channel], dx[i]);
    }
  }
}

FLA_DEVICE void store_tile(const ConvBackwardArgs& a, const TilePlace& p, const float (&dx)[kPerLane]) {
  FLA_UNROLL
  for (int i = 0; i < kPerLane; ++i) {
    const int64_t t = p.first + p.lane + i * kTileLanes;
    if (t >= p.end) break;
    const Sequence sequence = a.signal.sequences.covering(p.b, t);
    const bool inside = a.signal.holds(sequence, p.b, t);
    if (a.dresidual) a.dresidual.write(p.b, t, p.d, inside ? a.dy.read(p.b, t, p.d) : 0.0f);
    if (!a.dx) continue;
    float value = dx[i];
    const int64_t slot = t + a.signal.slots - sequence.end;
    if (inside && a.dfinal_state && slot >= 0) value += a.dfinal_state.read(sequence.index, p.d, slot);
    if (a.signal.mask) value *= a.signal.mask.read(p.b, t);
    a.dx.write(p.b, t, p.d, value);
  }
}

FLA_KERNEL void FLA_BOUNDS(kThreads, 3) backward_tiles(FLA_PARAMETERS ConvBackwardArgs a) {
  GradientTile& tile = *shared_memory<GradientTile>();
  const uint32_t group = blockIdx.x / a.channel_blocks, channel_block = blockIdx.x - group * a.channel_blocks;
  const int64_t tokens = a.signal.sequences.tokens;
  TilePlace p;
  p.channel = static_cast<int>(threadIdx.x) % kTileChannels;
  p.lane = static_cast<int>(threadIdx.x) / kTileChannels;
  p.b = group / a.segments;
  p.d = static_cast<int64_t>(channel_block) * kTileChannels + p.channel;
  p.first = (group - p.b * a.segments) * static_cast<int64_t>(kTileTokens);
  p.end = p.first + kTileTokens < tokens ? p.first + kTileTokens : tokens;
  p.active = p.d < a.channels;
  int64_t needed = p.end;
  if (a.dx) needed = p.end + a.filter.taps - 1 < tokens ? p.end + a.filter.taps - 1 : tokens;
  float dx[kPerLane] = {};
  for (int64_t start = p.first; start < needed; start += kTileTokens) {
    fill_gradients(a, p, start, tile);
    block_barrier();
    if (p.active && start == p.first) sum_parameters(a, p, group, tile);
    if (p.active && a.dx) add_chunk(a, p, start, tile, dx);
    block_barrier();
  }
  if (p.active) store_tile(a, p, dx);
}

}  // namespace

Status causal_conv1d_backward_tiles(const ConvBackwardArgs& a, const WalkPlan& p, Stream stream) {
  if (p.channel_blocks > 0x7fffffff) return launch_shape_error("channel block count", p.channel_blocks);
  if (p.segments > 0x7fffffff) return launch_shape_error("segment count", p.segments);
  return launch<&backward_tiles>(
      {.grid = p.blocks(), .block = kThreads, .shared_bytes = sizeof(GradientTile), .stream = stream}, a);
}

}  // namespace fla::detail
