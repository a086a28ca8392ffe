// Which part of a large problem is checked, and where its elements lie in the whole.
#pragma once

#include <cstdint>
#include <vector>

#include "harness/problem.h"

namespace fla::harness {

// The position of the direction's sample_dim among the tensor's dimensions, -1 where it has none.
int sample_axis_of(const Problem&, const Field&);

// Whether the case gives every element of this input the same address, and so the same value.
bool is_broadcast(const Problem&, const Field&);

// Whether this input of a backward is what the forward gave out.
bool is_saved(const Problem&, const Field&);

// The indices of sample_dim to judge: the ends, the rows around elements 2^31 and 2^32, edges of tiles, and
// random ones; about 2^19 elements of the largest tensor. Empty: the problem is judged whole.
std::vector<int64_t> choose_sample(const Problem&);

// Walks element indices of the sampled tensor to those of the whole.
struct SampleMap {
  int64_t inner = 1, whole = 1, kept = 1;  // elements per index, extents of the axis

  SampleMap(const Tensor& t, int axis, int64_t sample_size) : whole(t.size[axis]), kept(sample_size) {
    for (int d = axis + 1; d < t.rank; ++d) inner *= t.size[d];
  }
  int64_t to_whole(int64_t i, const std::vector<int64_t>& sample) const {
    const int64_t within = i % inner, index = i / inner % kept, outer = i / inner / kept;
    return (outer * whole + sample[static_cast<size_t>(index)]) * inner + within;
  }
};

}  // namespace fla::harness
