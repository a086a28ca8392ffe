#include "emulator/pending_copy.h"

namespace fla::detail::emulator {

bool is_aligned(const void* p, uintptr_t to) { return reinterpret_cast<uintptr_t>(p) % to == 0; }

bool overlap(const PendingCopy& a, const PendingCopy& b) {
  const auto x = reinterpret_cast<uintptr_t>(a.to), y = reinterpret_cast<uintptr_t>(b.to);
  return x < y + b.bytes && y < x + a.bytes;
}

// Not memcpy and memset: sanitizers intercept those as accesses of the thread that happens to call them. The
// empty asm keeps the compiler from turning the loops into them.
void move_bytes(const PendingCopy& copy) {
  auto* to = static_cast<uint64_t*>(copy.to);
  auto* from = static_cast<const uint64_t*>(copy.from);
  for (uint32_t i = 0; i < copy.bytes / 8; ++i) {
    to[i] = from[i];
    asm volatile("" ::: "memory");
  }
}

void poison_destination(const PendingCopy& copy) {
  auto* to = static_cast<uint64_t*>(copy.to);
  for (uint32_t i = 0; i < copy.bytes / 8; ++i) {
    to[i] = ~uint64_t{0};
    asm volatile("" ::: "memory");
  }
}

}  // namespace fla::detail::emulator
