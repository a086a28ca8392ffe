// The reference stands before the table, which looks its functions up by name.
#include "reference/conv.h"

#include "fla/conv.h"
#include "harness/operator_table.h"
#include "harness/operators/operators.h"

namespace fla::harness {

// Channels are independent of each other, rows in time are not.
void add_conv(std::vector<Direction>& table) {
  table.push_back(direction<CausalConv1dForward>("causal_conv1d", "fwd", {.sample_dim = "D"}));
  table.push_back(direction<CausalConv1dBackward>("causal_conv1d", "bwd", {.sample_dim = "D", .backward_of = "fwd"}));
  table.push_back(direction<CausalConv1dStates>("causal_conv1d", "states", {.sample_dim = "D"}));
  table.push_back(direction<CausalConv1dUpdate>("causal_conv1d", "update", {.sample_dim = "D"}));
}

}  // namespace fla::harness
