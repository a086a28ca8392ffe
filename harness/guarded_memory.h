// One device allocation with guard bands on both sides.
#pragma once

#include <string>

#include "harness/device.h"
#include "harness/poison.h"

namespace fla::harness {

class GuardedMemory {
 public:
  // `offset` moves the payload's base off its 256-byte boundary. Throws OutOfMemory.
  GuardedMemory(Device&, size_t payload_bytes, size_t offset, uint64_t seed);
  ~GuardedMemory();
  GuardedMemory(const GuardedMemory&) = delete;
  GuardedMemory& operator=(const GuardedMemory&) = delete;

  unsigned char* data() const { return base_ + front_; }
  size_t bytes() const { return payload_; }

  void arm(Poison);  // writes the bands
  // Where a band no longer holds what arm() wrote, "17 bytes past the end"; empty when both are whole.
  std::string damage() const;

  static size_t bytes_needed(const Device&, size_t payload_bytes, size_t offset);

 private:
  std::string damage(const unsigned char* band, size_t count, bool before) const;

  Device& device_;
  unsigned char* base_ = nullptr;
  size_t payload_, front_, back_;
  uint64_t seed_, armed_seed_ = 0;
};

}  // namespace fla::harness
