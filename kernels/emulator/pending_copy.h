// A copy from global to shared memory that has been issued and has not arrived.
#pragma once

#include <cstdint>

namespace fla::detail::emulator {

struct PendingCopy {
  void* to;
  const void* from;
  uint32_t bytes;  // a multiple of 8
};

bool is_aligned(const void* p, uintptr_t to);
bool overlap(const PendingCopy& a, const PendingCopy& b);
void move_bytes(const PendingCopy& copy);
// All ones: what reads the destination too early sees NaN.
void poison_destination(const PendingCopy& copy);

}  // namespace fla::detail::emulator
