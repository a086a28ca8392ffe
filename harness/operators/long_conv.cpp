// The reference stands before the table, which looks its functions up by name.
#include "reference/long_conv.h"

#include "fla/long_conv.h"
#include "harness/operator_table.h"
#include "harness/operators/operators.h"

namespace fla::harness {

void add_long_conv(std::vector<Direction>& table) {
  table.push_back(direction<LongConvForward>("long_conv", "fwd", {.sample_dim = "D"}));
  table.push_back(direction<LongConvBackward>("long_conv", "bwd", {.sample_dim = "D", .backward_of = "fwd"}));
  table.push_back(direction<LongConvPosTable>("long_conv_pos_table", "fwd", {.sample_dim = "P"}));
  table.push_back(direction<ImplicitFilterForward>("implicit_filter", "fwd", {}));
  table.push_back(direction<ImplicitFilterBackward>("implicit_filter", "bwd", {.backward_of = "fwd"}));
}

}  // namespace fla::harness
