// Row norms, forward, x in bf16.
#include "norm/row_norm_forward.cuh"

namespace fla::detail {
template Status row_norm_forward<bf16>(ForwardArgs, Form, const RowPlan&, Stream);
template Status row_norm_forward_pair<bf16>(ForwardPair, const RowPlan&, Stream);
}  // namespace fla::detail
