// Row norms, forward, x in f32.
#include "norm/row_norm_forward.cuh"

namespace fla::detail {
template Status row_norm_forward<float>(ForwardArgs, Form, const RowPlan&, Stream);
template Status row_norm_forward_pair<float>(ForwardPair, const RowPlan&, Stream);
}  // namespace fla::detail
