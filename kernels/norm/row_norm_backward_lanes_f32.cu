// Row norms, backward, unit lanes: u in f32, dy in f32.
#include "norm/row_norm_backward_lanes.cuh"

namespace fla::detail {
template Status row_norm_backward_lanes<float, float>(BackwardArgs, const BackwardPlan&, int, Stream);
}  // namespace fla::detail
