#include "emulator/access_watch.h"

#include <algorithm>
#include <mutex>

namespace fla::detail::emulator {
namespace {

std::mutex mutex;
std::vector<AccessWatch*>& watches() {
  static std::vector<AccessWatch*> all;
  return all;
}

}  // namespace

constinit std::atomic<int> active_watches{0};

AccessWatch::AccessWatch(const void* begin, size_t bytes)
    : begin_(reinterpret_cast<uintptr_t>(begin)), loads_(bytes), stores_(bytes) {
  const std::lock_guard lock(mutex);
  watches().push_back(this);
  ++active_watches;
}

AccessWatch::~AccessWatch() {
  const std::lock_guard lock(mutex);
  std::erase(watches(), this);
  --active_watches;
}

int64_t AccessWatch::first_not_stored(int times) const {
  const auto found = std::find_if(stores_.begin(), stores_.end(), [times](uint8_t n) { return n != times; });
  return found == stores_.end() ? -1 : found - stores_.begin();
}

int64_t AccessWatch::first_loaded() const {
  const auto found = std::find_if(loads_.begin(), loads_.end(), [](uint8_t n) { return n != 0; });
  return found == loads_.end() ? -1 : found - loads_.begin();
}

void count_access(const void* address, size_t bytes, bool is_store) {
  const auto at = reinterpret_cast<uintptr_t>(address);
  const std::lock_guard lock(mutex);
  for (AccessWatch* watch : watches()) {
    std::vector<uint8_t>& counts = is_store ? watch->stores_ : watch->loads_;
    const uintptr_t first = std::max(at, watch->begin_),
                    end = std::min(at + bytes, watch->begin_ + counts.size());
    for (uintptr_t byte = first; byte < end; ++byte) {
      uint8_t& count = counts[byte - watch->begin_];
      if (count < 255) ++count;
    }
  }
}

}  // namespace fla::detail::emulator
