// Row norms, backward, unit lanes: u in f16, dy in f16.
#include "norm/row_norm_backward_lanes.cuh"

namespace fla::detail {
template Status row_norm_backward_lanes<f16, f16>(BackwardArgs, const BackwardPlan&, int, Stream);
}  // namespace fla::detail
