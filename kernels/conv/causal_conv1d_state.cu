// Final states of causal convolutions: a move of at most S values per sequence and channel. A thread per
// (sequence, channel), so that neighbouring threads read neighbouring channels of x.
#include "conv/causal_conv1d_state.cuh"

#include "common/launch.h"
#include "common/workspace.h"
#include "fla/conv.h"
#include "fla/validate.h"

namespace fla {
namespace detail {
namespace {

constexpr int kStateThreads = 128;

FLA_KERNEL void FLA_BOUNDS(kStateThreads, 8)
    final_state_kernel(FLA_PARAMETERS Signal signal, FLA_PARAMETERS StateOperand final_state,
                       int64_t channels) {
  const int64_t index = static_cast<int64_t>(blockIdx.x) * kStateThreads + threadIdx.x;
  const int64_t n = index / channels, d = index - n * channels;
  if (n >= signal.sequences.count) return;
  const Sequence sequence = signal.sequences.at(n);
  const int64_t b = signal.sequences.row_of(n);
  // In place, slot c takes the place of slot c - L, which has been read: c ascends.
  for (int64_t c = 0; c < signal.slots; ++c)
    final_state.write(n, d, c, signal.at(sequence, b, sequence.end - signal.slots + c, d));
}

}  // namespace

Status store_final_state(const Signal& signal, const StateOperand& final_state, const ConvExtent& e,
                         Stream stream) {
  const int64_t threads = e.n * e.d;
  if (threads == 0 || e.s == 0) return {};
  return launch<&final_state_kernel>(
      {.grid = divide_up(threads, kStateThreads), .block = kStateThreads, .stream = stream}, signal,
      final_state, e.d);
}

Status check_filter(const ConvExtent& e, bool has_state, const char* state_name) {
  if (e.w < 1)
    return error(StatusCode::invalid_argument, "weight: W = %lld taps", static_cast<long long>(e.w));
  if (has_state && e.s < e.w - 1)
    return error(StatusCode::shape_mismatch, "%s: S = %lld slots, W = %lld taps need %lld", state_name,
                 static_cast<long long>(e.s), static_cast<long long>(e.w), static_cast<long long>(e.w - 1));
  return {};
}

Status check_sequences(const ConvExtent& e, const Tensor& cu_seqlens, const Tensor& mask) {
  if (Status s = check_packed(cu_seqlens, e.b); !s.ok()) return s;
  if (cu_seqlens && mask)
    return error(StatusCode::unsupported_combination, "mask: not together with cu_seqlens");
  return {};
}

Status check_groups(const Tensor& seq_idx, const Tensor& cu_seqlens, bool has_state, const char* state_name) {
  if (!seq_idx) return {};
  if (cu_seqlens) return error(StatusCode::unsupported_combination, "seq_idx: not together with cu_seqlens");
  if (has_state) return error(StatusCode::unsupported_combination, "seq_idx: not together with %s", state_name);
  return {};
}

}  // namespace detail

using namespace detail;

Status check(const CausalConv1dStates& a) {
  const ConvExtent e = extent_of(a);
  if (e.s < 1) return error(StatusCode::shape_mismatch, "final_state: no slots");
  return check_sequences(e, a.cu_seqlens, {});
}

size_t workspace_bytes(const CausalConv1dStates&) { return 0; }

Status run(const CausalConv1dStates& a, Workspace, Stream stream) {
  if (Status s = validate(a); !s.ok()) return s;
  const ConvExtent e = extent_of(a);
  const Signal signal = {
      token_operand(a.x), {}, state_operand(a.initial_state), sequence_map(a.cu_seqlens, e.b, e.t), e.s, {}};
  return store_final_state(signal, state_operand(a.final_state), e, stream);
}

}  // namespace fla
