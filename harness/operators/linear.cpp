// The reference stands before the table, which looks its functions up by name.
#include "reference/linear.h"

#include "fla/linear.h"
#include "harness/operator_table.h"
#include "harness/operators/operators.h"

namespace fla::harness {

// Rows are independent, but their bits are the library's affair: it may choose another algorithm for fewer rows.
void add_linear(std::vector<Direction>& table) {
  table.push_back(direction<SwigluLinearForward>("swiglu_linear", "fwd", {.sample_dim = "M"}));
  table.push_back(direction<SwigluLinearBackward>("swiglu_linear", "bwd", {.sample_dim = "M", .backward_of = "fwd"}));
  table.push_back(direction<RmsNormLinearForward>("rms_norm_linear", "fwd", {.sample_dim = "M"}));
  table.push_back(direction<RmsNormLinearBackward>(
      "rms_norm_linear", "bwd",
      {.sample_dim = "M", .backward_of = "fwd", .replaced_by = {{"x", "residual_out"}}}));
}

}  // namespace fla::harness
