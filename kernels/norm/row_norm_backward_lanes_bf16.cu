// Row norms, backward, unit lanes: u in bf16, dy in bf16.
#include "norm/row_norm_backward_lanes.cuh"

namespace fla::detail {
template Status row_norm_backward_lanes<bf16, bf16>(BackwardArgs, const BackwardPlan&, int, Stream);
}  // namespace fla::detail
