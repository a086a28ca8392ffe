#include "harness/traffic.h"

#include <algorithm>

namespace fla::harness {
namespace {

// Elements that lie apart in memory: broadcast dimensions are touched once.
int64_t distinct_bytes(const Tensor& t) {
  int64_t n = 1;
  for (int d = 0; d < t.rank; ++d)
    if (t.stride[d] != 0 || t.size[d] == 0) n *= t.size[d];
  return n * size_of(t.dtype);
}

}  // namespace

std::string Traffic::mix() const { return std::to_string(reads) + ":" + std::to_string(writes); }

int64_t Traffic::stream_bytes() const {
  const int streams = std::max(reads + writes, 1);
  return std::max<int64_t>(bytes() / streams / 16 * 16, 16);
}

Traffic traffic_of(const Problem& p) {
  Traffic traffic;
  int64_t largest = 0;
  for (const Field& f : p.signature.fields)
    if (const Tensor& t = p.args.tensor(f)) largest = std::max(largest, distinct_bytes(t));
  for (const Field& f : p.signature.fields) {
    const Tensor& t = p.args.tensor(f);
    if (!t) continue;
    const int64_t bytes = distinct_bytes(t);
    const bool main = bytes * 8 >= largest;
    if (f.role == Role::input || f.role == Role::inout) {
      traffic.read_bytes += bytes;
      traffic.reads += main;
    }
    if (f.role != Role::input) {
      traffic.written_bytes += bytes;
      traffic.writes += main;
    }
  }
  traffic.reads = std::min(traffic.reads, 4);
  traffic.writes = std::min(traffic.writes, 4);
  return traffic;
}

int rotation_for(int64_t touched, int64_t l2_bytes, int most) {
  if (touched <= 0) return 0;
  const int64_t sets = (3 * l2_bytes + touched - 1) / touched;
  return sets > most ? 0 : static_cast<int>(std::max<int64_t>(sets, 1));
}

}  // namespace fla::harness
