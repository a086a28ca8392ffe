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
  const auto add_norm = [&](const char* op, NormKind kind, GateActivation activation, float eps) {
    NormLinearForward f;
    NormLinearBackward b;
    f.kind = b.kind = kind;
    f.activation = b.activation = activation;
    f.eps = eps;
    table.push_back(direction(op, "fwd", forward, f));
    table.push_back(direction(op, "bwd", norm_backward, b));
  };
  add_norm("rms_norm_linear", NormKind::rms, GateActivation::none, 1e-5f);
  add_norm("layer_norm_linear", NormKind::layer, GateActivation::none, 1e-5f);
  add_norm("group_norm_linear", NormKind::layer, GateActivation::none, 1e-5f);
  add_norm("layer_norm_gated_linear", NormKind::layer, GateActivation::swish, 1e-6f);
  add_norm("rms_norm_gated_linear", NormKind::rms, GateActivation::swish, 1e-6f);
}

}  // namespace fla::harness
