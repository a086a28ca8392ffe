#include "harness/guarded_memory.h"

#include <vector>

namespace fla::harness {

GuardedMemory::GuardedMemory(Device& device, size_t payload_bytes, size_t offset, uint64_t seed)
    : device_(device),
      payload_(payload_bytes),
      front_(device.guard_bytes() + offset),
      back_(device.guard_bytes()),
      seed_(seed) {
  base_ = static_cast<unsigned char*>(device.allocate(front_ + payload_ + back_));
}

GuardedMemory::~GuardedMemory() { device_.release(base_); }

size_t GuardedMemory::bytes_needed(const Device& device, size_t payload_bytes, size_t offset) {
  return 2 * device.guard_bytes() + offset + payload_bytes;
}

void GuardedMemory::arm(Poison poison) {
  armed_seed_ = seed_ * 2 + (poison == Poison::large);
  std::vector<unsigned char> band(std::max(front_, back_));
  unsigned char* end = data() + payload_;
  fill_guard(armed_seed_, reinterpret_cast<uintptr_t>(base_), front_, band.data());
  if (front_) device_.upload(base_, band.data(), front_);
  fill_guard(armed_seed_, reinterpret_cast<uintptr_t>(end), back_, band.data());
  if (back_) device_.upload(end, band.data(), back_);
}

std::string GuardedMemory::damage(const unsigned char* band, size_t count, bool before) const {
  if (count == 0) return {};
  std::vector<unsigned char> expected(count), found(count);
  fill_guard(armed_seed_, reinterpret_cast<uintptr_t>(band), count, expected.data());
  device_.download(found.data(), band, count);
  // The damaged byte nearest to the payload says most.
  for (size_t step = 0; step < count; ++step) {
    const size_t i = before ? count - 1 - step : step;
    if (found[i] == expected[i]) continue;
    return std::to_string(before ? step + 1 : step) +
           (before ? " bytes before the start" : " bytes past the end");
  }
  return {};
}

std::string GuardedMemory::damage() const {
  const std::string before = damage(base_, front_, true);
  return before.empty() ? damage(data() + payload_, back_, false) : before;
}

}  // namespace fla::harness
