// The reference stands before the table, which looks its functions up by name.
#include "reference/mlp.h"

#include "fla/mlp.h"
#include "harness/operator_table.h"
#include "harness/operators/operators.h"

namespace fla::harness {

void add_mlp(std::vector<Direction>& table) {
  table.push_back(direction<GatedMlpForward>("gated_mlp", "fwd", {.sample_dim = "M"}));
  table.push_back(direction<GatedMlpBackward>("gated_mlp", "bwd", {.sample_dim = "M", .backward_of = "fwd"}));
}

}  // namespace fla::harness
