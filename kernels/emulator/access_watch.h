// Counting what kernels load and store, byte by byte, in chosen ranges: finds two writers of one element,
// elements that nobody wrote, and reads of what must not be read. Only accesses through common/vector.cuh and
// bulk copies are seen.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace fla::detail::emulator {

class AccessWatch {
 public:
  AccessWatch(const void* begin, size_t bytes);
  ~AccessWatch();
  AccessWatch(const AccessWatch&) = delete;
  AccessWatch& operator=(const AccessWatch&) = delete;

  // How often the byte at this offset was accessed; stops counting at 255.
  int loads(size_t offset) const { return loads_[offset]; }
  int stores(size_t offset) const { return stores_[offset]; }
  // The first offset whose byte was stored any other number of times; -1: none.
  int64_t first_not_stored(int times) const;
  int64_t first_loaded() const;

 private:
  friend void count_access(const void* address, size_t bytes, bool is_store);

  uintptr_t begin_;
  std::vector<uint8_t> loads_, stores_;
};

extern constinit std::atomic<int> active_watches;
void count_access(const void* address, size_t bytes, bool is_store);

inline void on_load(const void* address, size_t bytes) {
  if (active_watches.load(std::memory_order_relaxed) != 0) [[unlikely]]
    count_access(address, bytes, false);
}
inline void on_store(const void* address, size_t bytes) {
  if (active_watches.load(std::memory_order_relaxed) != 0) [[unlikely]]
    count_access(address, bytes, true);
}

}  // namespace fla::detail::emulator
