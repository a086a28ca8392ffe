#include "emulator/fiber.h"

#include <sys/mman.h>

#include <cstdint>
#include <cstdlib>
#include <new>

#include "emulator/sanitizers.h"
#include "emulator/stack_switch.h"

namespace fla::detail::emulator {
namespace {

// More than one page on every machine in use, so that no frame of a kernel steps over it unnoticed.
constexpr size_t kGuard = 64 * 1024;

constexpr unsigned kWithoutOrder = 1;  // TSan: this switch does not order what happens before and after

size_t stack_bytes() { return under_asan() || under_tsan() ? 256 * 1024 : 64 * 1024; }

}  // namespace

Fiber::~Fiber() {
  if (tsan_) __tsan_destroy_fiber(tsan_);
  if (!mapping_) return;
  allow(mapping_, kGuard + stack_bytes());
  munmap(mapping_, kGuard + stack_bytes());
}

void Fiber::start(Entry entry, unsigned colour) {
  if (!mapping_) {
    void* mapping = mmap(nullptr, kGuard + stack_bytes(), PROT_READ | PROT_WRITE,
                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (mapping == MAP_FAILED) throw std::bad_alloc();
    mapping_ = static_cast<char*>(mapping);
    mprotect(mapping_, kGuard, PROT_NONE);
  }
  if (under_tsan() && !tsan_) tsan_ = __tsan_create_fiber(0);
  char* top = mapping_ + kGuard + stack_bytes() - colour % 16 * 256;
  stack_pointer_ = make_stack(mapping_ + kGuard, top, entry);
  fake_stack_ = nullptr;
  fresh_ = true;
}

void Fiber::drop(FiberHost& host) {
  if (mapping_) allow(mapping_ + kGuard, stack_bytes());
  if (!tsan_) return;
  // What the fiber did comes before what the host does next: a visit in name only, and back with order.
  host.tsan = __tsan_get_current_fiber();
  __tsan_switch_to_fiber(tsan_, kWithoutOrder);
  __tsan_switch_to_fiber(host.tsan, 0);
  __tsan_destroy_fiber(tsan_);
  tsan_ = nullptr;
}

void Fiber::resume(FiberHost& host) {
  host_ = &host;
  if (under_asan()) __sanitizer_start_switch_fiber(&host.fake_stack, mapping_ + kGuard, stack_bytes());
  if (under_tsan()) {
    // A new function follows what the host did; from then on only modelled barriers order threads.
    host.tsan = __tsan_get_current_fiber();
    __tsan_switch_to_fiber(tsan_, fresh_ ? 0 : kWithoutOrder);
  }
  fresh_ = false;
  switch_stack(&host.stack_pointer, stack_pointer_);
  if (under_asan()) __sanitizer_finish_switch_fiber(host.fake_stack, nullptr, nullptr);
}

void Fiber::entered() {
  if (under_asan()) __sanitizer_finish_switch_fiber(nullptr, &host_->bottom, &host_->size);
}

void Fiber::back_to_host(bool ending) {
  if (under_asan())
    __sanitizer_start_switch_fiber(ending ? nullptr : &fake_stack_, host_->bottom, host_->size);
  if (under_tsan()) __tsan_switch_to_fiber(host_->tsan, kWithoutOrder);
  switch_stack(&stack_pointer_, host_->stack_pointer);
}

void Fiber::leave() {
  back_to_host(false);
  if (under_asan()) __sanitizer_finish_switch_fiber(fake_stack_, &host_->bottom, &host_->size);
}

void Fiber::end() {
  back_to_host(true);
  std::abort();
}

}  // namespace fla::detail::emulator
