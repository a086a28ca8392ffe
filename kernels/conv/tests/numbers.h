// Numbers for tests of the causal convolutions.
#pragma once

#include <cstdint>
#include <vector>

namespace fla {

// bf16 below 2 in absolute value.
inline std::vector<uint16_t> numbers(int64_t count, uint32_t seed) {
  std::vector<uint16_t> v(static_cast<size_t>(count));
  for (uint16_t& bits : v) {
    seed = seed * 1664525u + 1013904223u;
    bits = static_cast<uint16_t>((seed >> 16 & 0x80ff) | 0x3f00);
  }
  return v;
}

}  // namespace fla
