// Row norms, backward, unit lanes: u in f32, dy in bf16.
#include "norm/row_norm_backward_lanes.cuh"

namespace fla::detail {
template Status row_norm_backward_lanes<float, bf16>(BackwardArgs, const BackwardPlan&, int, Stream);
}  // namespace fla::detail
