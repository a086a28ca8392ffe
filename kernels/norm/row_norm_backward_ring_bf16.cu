// Row norms, backward, unit ring: u in bf16, dy in bf16.
#include "norm/row_norm_backward_ring.cuh"

namespace fla::detail {
template Status row_norm_backward_ring<bf16, bf16>(BackwardArgs, const BackwardPlan&, int, Stream);
}  // namespace fla::detail
