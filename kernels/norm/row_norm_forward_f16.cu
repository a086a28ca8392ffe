// Row norms, forward, x in f16.
#include "norm/row_norm_forward.cuh"

namespace fla::detail {
template Status row_norm_forward<f16>(ForwardArgs, Form, const RowPlan&, Stream);
template Status row_norm_forward_pair<f16>(ForwardPair, const RowPlan&, Stream);
}  // namespace fla::detail
