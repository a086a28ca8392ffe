// Quantisation as the fused operators need it beside their own kernels.
#pragma once

#include "common/alignment.h"
#include "fla/fp8.h"
#include "fla/status.h"
#include "fla/tensor.h"

namespace fla::detail {

// What quantize_fp8 checks of [M, G, N] rows of the argument `name`.
Status check_fp8_rows(const char* name, const Tensor& rows, Fp8Scaling);

// Whether 16-byte vectors of eight values go with the codes of the row: [M, G, N] or [M, N], N a multiple of 8.
inline bool codes_allow_vectors(const Tensor& q) { return q.size[q.rank - 1] % 8 == 0 && row_alignment(q, 8) == 8; }

}  // namespace fla::detail
