// Row norms, backward, unit ring: u in f32, dy in f32.
#include "norm/row_norm_backward_ring.cuh"

namespace fla::detail {
template Status row_norm_backward_ring<float, float>(BackwardArgs, const BackwardPlan&, int, Stream);
}  // namespace fla::detail
