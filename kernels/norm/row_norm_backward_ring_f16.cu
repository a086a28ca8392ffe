// Row norms, backward, unit ring: u in f16, dy in f16.
#include "norm/row_norm_backward_ring.cuh"

namespace fla::detail {
template Status row_norm_backward_ring<f16, f16>(BackwardArgs, const BackwardPlan&, int, Stream);
}  // namespace fla::detail
