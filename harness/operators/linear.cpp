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
  for (int k = 0; k < static_cast<int>(std::size(kGatedUnitNames)); ++k) {
    GluLinearForward f;
    GluLinearBackward b;
    f.kind = b.kind = static_cast<GatedUnit>(k);
    table.push_back(direction(std::string(kGatedUnitNames[k]) + "_linear", "fwd", forward, f));
    table.push_back(direction(std::string(kGatedUnitNames[k]) + "_linear", "bwd", backward, b));
  }
  table.push_back(direction<NormLinearForward>("rms_norm_linear", "fwd", forward));
  table.push_back(direction<NormLinearBackward>("rms_norm_linear", "bwd", norm_backward));
}

}  // namespace fla::harness
