// The reference stands before the table, which looks its functions up by name.
#include "reference/norm.h"

#include "harness/operator_table.h"
#include "harness/operators/operators.h"

namespace fla::harness {

void add_norm(std::vector<Direction>& table) {
  const Traits forward{.sample_dim = "M", .batch_invariant = true};
  const Traits backward{
      .sample_dim = "M", .backward_of = "fwd", .batch_invariant = true, .replaced_by = {{"x", "residual_out"}}};
  table.push_back(direction<RmsNormForward>("rms_norm", "fwd", forward));
  table.push_back(direction<RmsNormBackward>("rms_norm", "bwd", backward));
  table.push_back(direction<LayerNormForward>("layer_norm", "fwd", forward));
  table.push_back(direction<LayerNormBackward>("layer_norm", "bwd", backward));
  table.push_back(direction<GroupNormForward>("group_norm", "fwd", forward));
  table.push_back(direction<GroupNormBackward>("group_norm", "bwd", backward));
  table.push_back(direction<L2NormForward>("l2_norm", "fwd", forward));
  table.push_back(
      direction<L2NormBackward>("l2_norm", "bwd", {.sample_dim = "M", .backward_of = "fwd", .batch_invariant = true}));
  table.push_back(direction<QkNormForward>("qk_norm", "fwd", forward));
  table.push_back(
      direction<QkNormBackward>("qk_norm", "bwd", {.sample_dim = "M", .backward_of = "fwd", .batch_invariant = true}));
  table.push_back(direction<LayerNormGatedForward>("layer_norm_gated", "fwd", forward));
  table.push_back(direction<LayerNormGatedBackward>("layer_norm_gated", "bwd", backward));
  table.push_back(direction<RmsNormGatedForward>("rms_norm_gated", "fwd", forward));
  table.push_back(direction<RmsNormGatedBackward>("rms_norm_gated", "bwd", backward));
}

}  // namespace fla::harness
