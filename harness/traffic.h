// The fewest bytes a case must move, and what plain copy moves the same.
#pragma once

#include <cstdint>
#include <string>

#include "harness/problem.h"

namespace fla::harness {

struct Traffic {
  int64_t read_bytes = 0, written_bytes = 0;  // every present input once, every output once, inouts both
  int reads = 0, writes = 0;                  // main streams: tensors of at least an eighth of the largest
  int64_t bytes() const { return read_bytes + written_bytes; }
  std::string mix() const;                    // "2:1"
  // Bytes of each stream of a copy that moves as much with as many streams; a multiple of 16.
  int64_t stream_bytes() const;
};

Traffic traffic_of(const Problem&);

// How many sets of arguments a cold run rotates through, so that none is still in a cache of `l2_bytes`; 0 when that
// would take more than `most` of them: problems so small are never cold in practice.
int rotation_for(int64_t touched_bytes, int64_t l2_bytes, int most);

}  // namespace fla::harness
