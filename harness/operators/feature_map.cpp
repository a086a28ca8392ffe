// The reference stands before the table, which looks its functions up by name.
#include "reference/feature_map.h"

#include "fla/feature_map.h"
#include "harness/operator_table.h"
#include "harness/operators/operators.h"

namespace fla::harness {

void add_feature_map(std::vector<Direction>& table) {
  const Traits forward{.sample_dim = "M", .batch_invariant = true};
  const Traits backward{.sample_dim = "M", .backward_of = "fwd", .batch_invariant = true};
  for (const bool separate : {false, true}) {
    OuterTriuForward f;
    OuterTriuBackward b;
    f.separate_diagonal = b.separate_diagonal = separate;
    table.push_back(direction(separate ? "outer_triu_off1" : "outer_triu", "fwd", forward, f));
    table.push_back(direction(separate ? "outer_triu_off1" : "outer_triu", "bwd", backward, b));
  }
  table.push_back(direction<TaylorMapForward>("fmap_taylor", "fwd", forward));
  table.push_back(direction<TaylorMapBackward>("fmap_taylor", "bwd", backward));
  table.push_back(direction<RebasedMapForward>("fmap_rebased", "fwd", forward));
  table.push_back(direction<RebasedMapBackward>("fmap_rebased", "bwd", backward));
  table.push_back(direction<DpfpMapForward>("fmap_dpfp", "fwd", forward));
  table.push_back(direction<DpfpMapBackward>("fmap_dpfp", "bwd", backward));
}

}  // namespace fla::harness
