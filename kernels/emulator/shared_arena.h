// The dynamic shared memory of the block that runs: exactly as large as the launch asked for, between edges
// whose change is noticed (at once under ASan, at the block's end otherwise), and in front of a guard page.
#pragma once

#include <cstddef>
#include <cstdint>

namespace fla::detail::emulator {

inline constexpr size_t kSharedMemoryLimit = 232448;  // opt-in limit per block on sm_90 (227 KB)

// Bytes of fresh shared memory and of copies under way: NaN in every float format, -1 in every integer.
inline constexpr unsigned char kPoison = 0xff;

class SharedArena {
 public:
  SharedArena();
  ~SharedArena();
  SharedArena(const SharedArena&) = delete;
  SharedArena& operator=(const SharedArena&) = delete;

  void* resize(size_t bytes);  // 128-byte aligned, until the next resize
  void* begin() const { return begin_; }
  void poison();               // contents and edges
  bool contains(const void* begin, size_t bytes) const;
  size_t offset(const void* p) const { return static_cast<size_t>(static_cast<const char*>(p) - begin_); }
  // Where the kernel wrote outside, relative to the beginning; 0: nowhere.
  int64_t first_change_outside() const;

 private:
  char* mapping_ = nullptr;
  char* begin_ = nullptr;
  size_t bytes_ = 0;
};

}  // namespace fla::detail::emulator
