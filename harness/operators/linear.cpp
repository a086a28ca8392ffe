// The reference stands before the table, which looks its functions up by name.
#include "reference/linear.h"

#include "fla/linear.h"
#include "harness/operator_table.h"
#include "harness/operators/operators.h"

namespace fla::harness {

// Rows are independent, but their bits are the library's affair: it may choose another algorithm for fewer rows.
void add_linear(std::vector<Direction>& table) {
  const Traits forward{.sample_dim = "M"}, backward{.sample_dim = "M", .backward_of = "fwd"};
  const Traits norm_backward{.sample_dim = "M", .backward_of = "fwd", .replaced_by = {{"x", "residual_out"}}};
  table.push_back(direction<GluLinearForward>("swiglu_linear", "fwd", forward));
  table.push_back(direction<GluLinearBackward>("swiglu_linear", "bwd", backward));
  table.push_back(direction<NormLinearForward>("rms_norm_linear", "fwd", forward));
  table.push_back(direction<NormLinearBackward>("rms_norm_linear", "bwd", norm_backward));
}

}  // namespace fla::harness
