// What the emulator tells the sanitizers of a program that has one. The emulator's own sources are never
// instrumented (a scheduler that switches stacks would report itself), so they ask at run time: weak symbols,
// null without a sanitizer.
#pragma once

#include <cstddef>

extern "C" {
__attribute__((weak)) void __sanitizer_start_switch_fiber(void** fake_stack, const void* bottom, size_t size);
__attribute__((weak)) void __sanitizer_finish_switch_fiber(void* fake_stack, const void** bottom,
                                                           size_t* size);
__attribute__((weak)) void __asan_poison_memory_region(const volatile void* begin, size_t size);
__attribute__((weak)) void __asan_unpoison_memory_region(const volatile void* begin, size_t size);
__attribute__((weak)) void* __asan_region_is_poisoned(void* begin, size_t size);
__attribute__((weak)) void* __tsan_get_current_fiber();
__attribute__((weak)) void* __tsan_create_fiber(unsigned flags);
__attribute__((weak)) void __tsan_destroy_fiber(void* fiber);
__attribute__((weak)) void __tsan_switch_to_fiber(void* fiber, unsigned flags);
__attribute__((weak)) void __tsan_acquire(void* object);
__attribute__((weak)) void __tsan_release(void* object);
__attribute__((weak)) void __tsan_read_range(void* begin, unsigned long size);
__attribute__((weak)) void __tsan_write_range(void* begin, unsigned long size);
__attribute__((weak)) void AnnotateIgnoreReadsBegin(const char* file, int line);
__attribute__((weak)) void AnnotateIgnoreReadsEnd(const char* file, int line);
__attribute__((weak)) void AnnotateIgnoreWritesBegin(const char* file, int line);
__attribute__((weak)) void AnnotateIgnoreWritesEnd(const char* file, int line);
}

namespace fla::detail::emulator {

inline bool under_asan() {
  return __sanitizer_start_switch_fiber != nullptr && __asan_poison_memory_region != nullptr;
}
inline bool under_tsan() { return __tsan_create_fiber != nullptr; }

// Everything before a release of an object happens before everything after an acquire of it. TSan sees no
// other order between the threads of a block.
inline void order_release(void* object) {
  if (under_tsan()) __tsan_release(object);
}
inline void order_acquire(void* object) {
  if (under_tsan()) __tsan_acquire(object);
}

// An access by the running thread that uninstrumented code makes, or that hardware would make at this point.
inline void note_read(const void* begin, size_t size) {
  if (__tsan_read_range) __tsan_read_range(const_cast<void*>(begin), size);
}
inline void note_write(void* begin, size_t size) {
  if (__tsan_write_range) __tsan_write_range(begin, size);
}

// While one lives, TSan does not see what the running thread does: for the emulator's own books, which
// threads of a block write in turn. Its allocations and copies would be seen otherwise, instrumented or not.
class Bookkeeping {
 public:
  Bookkeeping() {
    if (!under_tsan()) return;
    AnnotateIgnoreReadsBegin(__FILE__, __LINE__);
    AnnotateIgnoreWritesBegin(__FILE__, __LINE__);
  }
  ~Bookkeeping() {
    if (!under_tsan()) return;
    AnnotateIgnoreWritesEnd(__FILE__, __LINE__);
    AnnotateIgnoreReadsEnd(__FILE__, __LINE__);
  }
  Bookkeeping(const Bookkeeping&) = delete;
  Bookkeeping& operator=(const Bookkeeping&) = delete;
};

inline void forbid(const void* begin, size_t size) {
  if (under_asan() && size > 0) __asan_poison_memory_region(begin, size);
}
inline void allow(const void* begin, size_t size) {
  if (under_asan() && size > 0) __asan_unpoison_memory_region(begin, size);
}
inline bool is_forbidden(const void* begin, size_t size) {
  return under_asan() && size > 0 && __asan_region_is_poisoned(const_cast<void*>(begin), size) != nullptr;
}

}  // namespace fla::detail::emulator
