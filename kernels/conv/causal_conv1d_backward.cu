// Causal convolution, backward: validation, the choice of mapping, the gradient of the initial state, and the
// second stage of the parameter gradients.
#include "common/column_sum.cuh"
#include "common/launch.h"
#include "common/workspace.h"
#include "conv/causal_conv1d_gradient.cuh"
#include "conv/causal_conv1d_state.cuh"
#include "fla/conv.h"
#include "fla/validate.h"

namespace fla {
namespace {

using namespace detail;

constexpr int kStateThreads = 128;

// A thread per slot: at most W - 1 slots are read, by the first tokens of the sequence, so g is formed again
// for each.
FLA_KERNEL void FLA_BOUNDS(kStateThreads, 8) initial_state_gradient(FLA_PARAMETERS ConvBackwardArgs a) {
  const int64_t slots = a.signal.slots, taps = a.filter.taps;
  const int64_t index = static_cast<int64_t>(blockIdx.x) * kStateThreads + threadIdx.x;
  const int64_t sequence_channel = index / slots, slot = index - sequence_channel * slots;
  const int64_t n = sequence_channel / a.channels, d = sequence_channel - n * a.channels;
  if (n >= a.signal.sequences.count) return;
  const Sequence sequence = a.signal.sequences.at(n);
  const int64_t b = a.signal.sequences.row_of(n), length = sequence.end - sequence.begin;
  float sum = 0.0f;
  // Token t reads the slot with tap W - 1 - (t + S - slot).
  for (int64_t t = 0; t < length && t + slots - slot < taps; ++t)
    sum = fmaf(a.filter.tap(d, taps - 1 - (t + slots - slot)),
               gradient_at(a, sequence, b, sequence.begin + t, d), sum);
  if (a.dfinal_state && slot >= length) sum += a.dfinal_state.read(n, d, slot - length);
  a.dinitial_state.write(n, d, slot, sum);
}

bool has_tokens(const ConvExtent& e) { return e.b > 0 && e.t > 0 && e.d > 0; }

size_t partial_bytes(const WalkPlan& p, int64_t columns) {
  return align_workspace(static_cast<size_t>(p.groups * columns) * sizeof(float));
}

ConvBackwardArgs arguments(const CausalConv1dBackward& a, const ConvExtent& e, const WalkPlan& p) {
  ConvBackwardArgs args;
  args.signal = {token_operand(a.x), mask_operand(a.mask), state_operand(a.initial_state),
                 sequence_map(a.cu_seqlens, e.b, e.t), e.s, group_operand(a.seq_idx)};
  args.filter = filter_operand(a.weight, a.bias);
  args.dy = token_operand(a.dy);
  args.dx = token_operand(a.dx);
  args.dresidual = token_operand(a.dresidual);
  args.dfinal_state = state_operand(a.dfinal_state);
  args.dinitial_state = state_operand(a.dinitial_state);
  args.rows = e.b;
  args.channels = e.d;
  args.segments = static_cast<uint32_t>(p.segments);
  args.channel_blocks = static_cast<uint32_t>(p.channel_blocks);
  args.steps = static_cast<int32_t>(p.steps);
  args.lane_bits = p.lane_bits;
  args.silu = silu_form(a.activation, a.x.dtype);
  return args;
}

bool asks_for_anything(const ConvBackwardArgs& a) {
  return a.dx || a.dresidual || a.weight_partials || a.bias_partials;
}

// The windowed kernel where it fits; outputs that it cannot write (another dtype, unaligned) come from the tiles.
Status token_gradients(const ConvBackwardArgs& args, const CausalConv1dBackward& a, const WalkPlan& p, Stream stream) {
  if (!p.vectors) return asks_for_anything(args) ? causal_conv1d_backward_tiles(args, p, stream) : Status{};
  ConvBackwardArgs windowed = args, rest = args;
  rest.weight_partials = rest.bias_partials = nullptr;
  (fits_window(a, a.dx) ? rest : windowed).dx = {};
  (fits_window(a, a.dresidual) ? rest : windowed).dresidual = {};
  if (asks_for_anything(windowed))
    if (Status s = causal_conv1d_backward_windowed(windowed, p, a.x.dtype, stream); !s.ok()) return s;
  if (!asks_for_anything(rest)) return {};
  const WalkPlan tiles = plan_tiles(extent_of(a));
  rest.segments = static_cast<uint32_t>(tiles.segments);
  rest.channel_blocks = static_cast<uint32_t>(tiles.channel_blocks);
  rest.steps = static_cast<int32_t>(tiles.steps);
  rest.lane_bits = tiles.lane_bits;
  return causal_conv1d_backward_tiles(rest, tiles, stream);
}

}  // namespace

Status check(const CausalConv1dBackward& a) {
  if (!a.dx && !a.dweight && !a.dbias && !a.dresidual && !a.dinitial_state)
    return error(StatusCode::invalid_argument, "dx: no output is asked for");
  const ConvExtent e = extent_of(a);
  const bool states = a.initial_state || a.dfinal_state || a.dinitial_state;
  const char* state = a.initial_state ? "initial_state" : "dfinal_state";
  if (Status s = check_filter(e, states, state); !s.ok()) return s;
  if (Status s = check_groups(a.seq_idx, a.cu_seqlens, states, state); !s.ok()) return s;
  return check_sequences(e, a.cu_seqlens, a.mask);
}

size_t workspace_bytes(const CausalConv1dBackward& a) {
  const ConvExtent e = extent_of(a);
  if (!has_tokens(e)) return 0;
  const WalkPlan p = plan(a);
  return (a.dweight ? partial_bytes(p, e.d * e.w) : 0) + (a.dbias ? partial_bytes(p, e.d) : 0);
}

Status run(const CausalConv1dBackward& a, Workspace workspace, Stream stream) {
  if (Status s = validate(a); !s.ok()) return s;
  if (Status s = check_workspace(workspace, workspace_bytes(a)); !s.ok()) return s;
  const ConvExtent e = extent_of(a);
  const WalkPlan p = plan(a);
  ConvBackwardArgs args = arguments(a, e, p);
  auto* partials = static_cast<char*>(workspace.data);
  int64_t parts = 0;
  if (has_tokens(e)) {
    parts = p.groups;
    if (a.dweight) args.weight_partials = reinterpret_cast<float*>(partials);
    if (a.dbias)
      args.bias_partials = reinterpret_cast<float*>(partials + (a.dweight ? partial_bytes(p, e.d * e.w) : 0));
    if (Status s = token_gradients(args, a, p, stream); !s.ok()) return s;
  }
  const ColumnTargets targets{{column_target(args.weight_partials, a.dweight), column_target(args.bias_partials, a.dbias)}};
  if (Status s = finish_columns(targets, parts, stream); !s.ok()) return s;
  const int64_t slots = e.n * e.d * e.s;
  if (!a.dinitial_state || slots == 0) return {};
  return launch<&initial_state_gradient>(
      {.grid = divide_up(slots, kStateThreads), .block = kStateThreads, .stream = stream}, args);
}

}  // namespace fla
