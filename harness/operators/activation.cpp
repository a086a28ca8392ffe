// The reference stands before the table, which looks its functions up by name.
#include "reference/activation.h"

#include "fla/activation.h"
#include "harness/operator_table.h"
#include "harness/operators/operators.h"

namespace fla::harness {

void add_activation(std::vector<Direction>& table) {
  table.push_back(direction<SwigluForward>("swiglu", "fwd", {.sample_dim = "M", .batch_invariant = true}));
  table.push_back(
      direction<SwigluBackward>("swiglu", "bwd", {.sample_dim = "M", .backward_of = "fwd", .batch_invariant = true}));
}

}  // namespace fla::harness
