// Row norms, backward, unit ring: u in f32, dy in bf16.
#include "norm/row_norm_backward_ring.cuh"

namespace fla::detail {
template Status row_norm_backward_ring<float, bf16>(BackwardArgs, const BackwardPlan&, int, Stream);
}  // namespace fla::detail
