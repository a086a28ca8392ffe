#include "emulator/shared_arena.h"

#include <sys/mman.h>

#include <cstring>
#include <new>

#include "emulator/sanitizers.h"

namespace fla::detail::emulator {
namespace {

constexpr size_t kAlignment = 128, kEdge = 256, kGuard = 64 * 1024;
constexpr size_t kUsable = (kSharedMemoryLimit + 2 * kEdge + kGuard - 1) / kGuard * kGuard;
constexpr unsigned char kEdgePattern = 0xfb;  // a NaN too, but no poison

}  // namespace

SharedArena::SharedArena() {
  void* mapping = mmap(nullptr, kUsable + kGuard, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (mapping == MAP_FAILED) throw std::bad_alloc();
  mapping_ = static_cast<char*>(mapping);
  mprotect(mapping_ + kUsable, kGuard, PROT_NONE);
  resize(0);
}

SharedArena::~SharedArena() {
  allow(mapping_, kUsable);
  munmap(mapping_, kUsable + kGuard);
}

void* SharedArena::resize(size_t bytes) {
  bytes_ = bytes;
  begin_ = mapping_ + (kUsable - kEdge - bytes) / kAlignment * kAlignment;
  return begin_;
}

void SharedArena::poison() {
  allow(mapping_, kUsable);
  char* end = begin_ + bytes_;
  std::memset(begin_, kPoison, bytes_);
  std::memset(begin_ - kEdge, kEdgePattern, kEdge);
  std::memset(end, kEdgePattern, kEdge);
  forbid(begin_ - kEdge, kEdge);
  forbid(end, kEdge);
}

bool SharedArena::contains(const void* begin, size_t bytes) const {
  const auto p = reinterpret_cast<uintptr_t>(begin), low = reinterpret_cast<uintptr_t>(begin_);
  return p >= low && p - low <= bytes_ && bytes <= bytes_ - (p - low);
}

int64_t SharedArena::first_change_outside() const {
  if (under_asan()) return 0;
  auto changed = [this](int64_t at) { return static_cast<unsigned char>(begin_[at]) != kEdgePattern; };
  const auto end = static_cast<int64_t>(bytes_), edge = static_cast<int64_t>(kEdge);
  for (int64_t at = end; at < end + edge; ++at)
    if (changed(at)) return at == 0 ? 1 : at;
  for (int64_t at = -1; at >= -edge; --at)
    if (changed(at)) return at;
  return 0;
}

}  // namespace fla::detail::emulator
