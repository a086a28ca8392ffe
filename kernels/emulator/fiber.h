// Stacks that threads of a block run on, and the switch between them and their host, the scheduler.
#pragma once

#include <cstddef>

namespace fla::detail::emulator {

// Where the scheduler's own stack waits while a fiber runs.
struct FiberHost {
  void* stack_pointer = nullptr;
  void* fake_stack = nullptr;  // ASan's
  const void* bottom = nullptr;
  size_t size = 0;
  void* tsan = nullptr;
};

// Runs one function after another, each from start() on; leave() stops in the middle of one, resume() goes
// on. A function that has not ended may be dropped: nothing on its stack is destroyed then.
class Fiber {
 public:
  using Entry = void (*)();

  Fiber() = default;
  ~Fiber();
  Fiber(const Fiber&) = delete;
  Fiber& operator=(const Fiber&) = delete;

  // The next resume() calls entry() on an empty stack. `colour` staggers the stacks, which would otherwise
  // compete for the same cache sets.
  void start(Entry entry, unsigned colour);
  void resume(FiberHost& host);  // returns when the function leaves or ends
  void drop(FiberHost& host);    // before start(), when the last function was left unfinished

  // On the fiber itself:
  void entered();           // first, in entry()
  void leave();             // back to the host; returns when resumed
  [[noreturn]] void end();  // back to the host for good

 private:
  void back_to_host(bool ending);

  void* stack_pointer_ = nullptr;
  char* mapping_ = nullptr;
  FiberHost* host_ = nullptr;
  void* fake_stack_ = nullptr;
  void* tsan_ = nullptr;
  bool fresh_ = false;
};

}  // namespace fla::detail::emulator
