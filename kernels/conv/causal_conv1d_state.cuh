// The final state and the checks that the causal convolutions share.
#pragma once

#include "conv/causal_window.cuh"
#include "conv/conv_plan.h"
#include "fla/status.h"

namespace fla::detail {

// final_state[n, d, c] = X(L - S + c). It may be the initial state itself.
Status store_final_state(const Signal& signal, const StateOperand& final_state, const ConvExtent& e,
                         Stream stream);

// W >= 1, and S >= W - 1 where there is a state.
Status check_filter(const ConvExtent& e, bool has_state, const char* state_name);

// What cu_seqlens excludes, and seq_idx.
Status check_sequences(const ConvExtent& e, const Tensor& cu_seqlens, const Tensor& mask);
Status check_groups(const Tensor& seq_idx, const Tensor& cu_seqlens, bool has_state, const char* state_name);

}  // namespace fla::detail
