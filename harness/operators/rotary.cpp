// The reference stands before the table, which looks its functions up by name.
#include "reference/rotary.h"

#include "fla/rotary.h"
#include "harness/operator_table.h"
#include "harness/operators/operators.h"

namespace fla::harness {

// Heads are independent of each other; of q and k together, which have different numbers of them, only rows are.
void add_rotary(std::vector<Direction>& table) {
  table.push_back(direction<RotaryForward>("rotary", "fwd", {.sample_dim = "H"}));
  table.push_back(direction<RotaryBackward>("rotary", "bwd", {.sample_dim = "H", .backward_of = "fwd"}));
  table.push_back(direction<RotaryQkForward>("rotary_qk", "fwd", {.sample_dim = "B"}));
  table.push_back(direction<RotaryQkBackward>("rotary_qk", "bwd", {.sample_dim = "B", .backward_of = "fwd"}));
}

}  // namespace fla::harness
