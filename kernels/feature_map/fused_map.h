// Learned maps of heads of 64 or 128 in 16 bits, fused with their products: the weights stay in shared memory.
#pragma once

#include "fla/learned_map.h"

namespace fla::detail {

// Whether the call can be fused: from shapes, dtypes and alignment alone.
bool fuses(const LearnedMapForward&);
bool fuses(const LearnedMapBackward&);

Status run_fused(const LearnedMapForward&, Stream);
size_t fused_workspace_bytes(const LearnedMapBackward&);
Status run_fused(const LearnedMapBackward&, Workspace, Stream);

}  // namespace fla::detail
