// The reference stands before the table, which looks its functions up by name.
#include "reference/norm.h"

#include "fla/norm.h"
#include "harness/operator_table.h"
#include "harness/operators/operators.h"

namespace fla::harness {

void add_norm(std::vector<Direction>& table) {
  table.push_back(direction<RmsNormForward>("rms_norm", "fwd", {.sample_dim = "M", .batch_invariant = true}));
  table.push_back(direction<RmsNormBackward>(
      "rms_norm", "bwd",
      {.sample_dim = "M", .backward_of = "fwd", .batch_invariant = true, .replaced_by = {{"x", "residual_out"}}}));
}

}  // namespace fla::harness
