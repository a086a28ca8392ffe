// The reference stands before the table, which looks its functions up by name.
#include "reference/activation.h"

#include "fla/activation.h"
#include "harness/every_input.h"
#include "harness/operator_table.h"
#include "harness/operators/operators.h"

namespace fla::harness {

void add_activation(std::vector<Direction>& table) {
  Traits forward{.sample_dim = "M", .batch_invariant = true};
  Traits backward{.sample_dim = "M", .backward_of = "fwd", .batch_invariant = true};
  table.push_back(direction<BiasGeluTanhForward>("bias_gelu_tanh", "fwd", forward));
  table.push_back(direction<BiasGeluTanhBackward>("bias_gelu_tanh", "bwd", backward));
  forward.every = &kEveryActivationForward;
  backward.every = &kEveryActivationBackward;
  for (int k = 0; k < static_cast<int>(std::size(kActivationNames)); ++k) {
    ActivationForward f;
    ActivationBackward b;
    f.kind = b.kind = static_cast<Activation>(k);
    table.push_back(direction(kActivationNames[k], "fwd", forward, f));
    table.push_back(direction(kActivationNames[k], "bwd", backward, b));
  }
  forward.every = &kEveryGluForward;
  backward.every = &kEveryGluBackward;
  for (int k = 0; k < static_cast<int>(std::size(kGatedUnitNames)); ++k) {
    GluForward f;
    GluBackward b;
    f.kind = b.kind = static_cast<GatedUnit>(k);
    table.push_back(direction(kGatedUnitNames[k], "fwd", forward, f));
    table.push_back(direction(kGatedUnitNames[k], "bwd", backward, b));
  }
}

}  // namespace fla::harness
