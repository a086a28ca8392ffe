// From what a kernel wrote to verdicts on its numbers.
#pragma once

#include <vector>

#include "harness/buffers.h"
#include "harness/evaluate.h"

namespace fla::harness {

// Compares every output, saved and inout tensor with elements against the reference. `judged` is
// sampled(problem). Adds a check per tensor, named like it, and a "trust:<tensor>" where the comparison would
// prove too little.
void judge(const Problem& judged, const Snapshot&, std::vector<Check>& checks);

// Vacuity thresholds of the case's fill.
double allowed_zero_share(const Case&);

int64_t element_count(const Tensor&);
int64_t largest_tensor(const Problem&);

}  // namespace fla::harness
