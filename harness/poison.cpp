#include "harness/poison.h"

#include <algorithm>
#include <cstring>
#include <vector>

namespace fla::harness {
namespace {

// Read as f16, bf16 or f32 these halves are a quiet NaN, and +-57344, +-6.6e35 or +-6.7e35; as f8e4m3, the bytes are NaN
// and +-448.
constexpr uint16_t kNan = 0x7fc1, kLarge = 0x7b00, kSign = 0x8000;
constexpr unsigned char kByteNan = 0x7f, kByteLarge = 0x7e, kByteSign = 0x80;

uint64_t mix(uint64_t x) {
  x += 0x9e3779b97f4a7c15u;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

// Two consecutive elements, even index first.
std::vector<unsigned char> poison_pair(Poison poison, DType type) {
  const size_t element = static_cast<size_t>(size_of(type));
  std::vector<unsigned char> pair(2 * element, poison == Poison::nan ? 0xa5 : 0x5a);
  if (!is_float(type)) return pair;
  if (element == 1) {
    const unsigned char byte = poison == Poison::nan ? kByteNan : kByteLarge;
    pair = {byte, static_cast<unsigned char>(poison == Poison::large ? byte | kByteSign : byte)};
    return pair;
  }
  for (size_t half = 0; half < element; half += 2) {
    uint16_t bits = poison == Poison::nan ? kNan : kLarge;
    std::memcpy(pair.data() + half, &bits, 2);
    const bool holds_sign = half + 2 == element;  // little-endian
    if (poison == Poison::large && holds_sign) bits |= kSign;
    std::memcpy(pair.data() + element + half, &bits, 2);
  }
  return pair;
}

}  // namespace

void fill_poison(Poison poison, DType type, int64_t first, int64_t count, void* bytes) {
  const size_t element = static_cast<size_t>(size_of(type));
  const std::vector<unsigned char> pair = poison_pair(poison, type);
  auto* out = static_cast<unsigned char*>(bytes);
  for (int64_t i = 0; i < count; ++i)
    std::memcpy(out + static_cast<size_t>(i) * element, pair.data() + ((first + i) % 2 ? element : 0),
                element);
}

int64_t find_unpoisoned(Poison poison, DType type, int64_t first, int64_t count, const void* bytes) {
  const size_t element = static_cast<size_t>(size_of(type));
  const std::vector<unsigned char> pair = poison_pair(poison, type);
  const auto* in = static_cast<const unsigned char*>(bytes);
  for (int64_t i = 0; i < count; ++i) {
    const unsigned char* expected = pair.data() + ((first + i) % 2 ? element : 0);
    if (std::memcmp(in + static_cast<size_t>(i) * element, expected, element) != 0) return i;
  }
  return -1;
}

void fill_guard(uint64_t seed, uintptr_t address, size_t count, void* bytes) {
  auto* out = static_cast<unsigned char*>(bytes);
  for (size_t i = 0; i < count; ++i) {
    const uintptr_t at = address + i;
    out[i] = static_cast<unsigned char>(mix(seed ^ (at & ~uintptr_t{7})) >> (8 * (at & 7)));
  }
}

uint64_t hash_bytes(uint64_t seed, const void* bytes, size_t count) {
  const auto* in = static_cast<const unsigned char*>(bytes);
  uint64_t lanes[4];  // of independent products: one alone waits for its last
  for (uint64_t l = 0; l < 4; ++l) lanes[l] = mix(seed ^ count ^ l << 56);
  const auto absorb = [](uint64_t& h, const unsigned char* from, size_t size) {
    uint64_t word = 0;
    std::memcpy(&word, from, size);
    h = (h ^ word) * 0x9fb21c651e98df25u;
    h ^= h >> 32;
  };
  for (; count >= 32; in += 32, count -= 32)
    for (size_t l = 0; l < 4; ++l) absorb(lanes[l], in + 8 * l, 8);
  for (; count > 0; in += std::min<size_t>(count, 8), count -= std::min<size_t>(count, 8))
    absorb(lanes[count / 8], in, std::min<size_t>(count, 8));
  return mix(mix(mix(mix(lanes[0]) ^ lanes[1]) ^ lanes[2]) ^ lanes[3]);
}

}  // namespace fla::harness
