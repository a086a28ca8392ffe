#include "emulator/stack_switch.h"

#include <cstdint>
#include <cstring>

#if !defined(__x86_64__) && !defined(__aarch64__)
#include <ucontext.h>
#endif

namespace fla::detail::emulator {

#if defined(__x86_64__)

// Callee-saved registers of the System V ABI; the return address is the place to go on.
extern "C" void fla_emulator_switch_stack(void** from, void* to);
asm(R"(
.text
.globl fla_emulator_switch_stack
.hidden fla_emulator_switch_stack
.type fla_emulator_switch_stack, @function
fla_emulator_switch_stack:
  pushq %rbp
  pushq %rbx
  pushq %r12
  pushq %r13
  pushq %r14
  pushq %r15
  movq %rsp, (%rdi)
  movq %rsi, %rsp
  popq %r15
  popq %r14
  popq %r13
  popq %r12
  popq %rbx
  popq %rbp
  ret
.size fla_emulator_switch_stack, .-fla_emulator_switch_stack
)");

void* make_stack(char*, char* top, void (*entry)()) {
  // From below: six registers, the entry, and a null return address, which ends every stack trace. On entry
  // the stack pointer is 8 below a multiple of 16, as after a call.
  auto* slots = reinterpret_cast<void**>(reinterpret_cast<uintptr_t>(top) & ~uintptr_t{15});
  *--slots = nullptr;
  *--slots = reinterpret_cast<void*>(entry);
  for (int i = 0; i < 6; ++i) *--slots = nullptr;
  return slots;
}

void switch_stack(void** from, void* to) { fla_emulator_switch_stack(from, to); }

#elif defined(__aarch64__)

extern "C" void fla_emulator_switch_stack(void** from, void* to);
asm(R"(
.text
.globl fla_emulator_switch_stack
.hidden fla_emulator_switch_stack
.type fla_emulator_switch_stack, %function
fla_emulator_switch_stack:
  stp x19, x20, [sp, #-160]!
  stp x21, x22, [sp, #16]
  stp x23, x24, [sp, #32]
  stp x25, x26, [sp, #48]
  stp x27, x28, [sp, #64]
  stp x29, x30, [sp, #80]
  stp d8, d9, [sp, #96]
  stp d10, d11, [sp, #112]
  stp d12, d13, [sp, #128]
  stp d14, d15, [sp, #144]
  mov x9, sp
  str x9, [x0]
  mov sp, x1
  ldp x21, x22, [sp, #16]
  ldp x23, x24, [sp, #32]
  ldp x25, x26, [sp, #48]
  ldp x27, x28, [sp, #64]
  ldp x29, x30, [sp, #80]
  ldp d8, d9, [sp, #96]
  ldp d10, d11, [sp, #112]
  ldp d12, d13, [sp, #128]
  ldp d14, d15, [sp, #144]
  ldp x19, x20, [sp], #160
  ret
.size fla_emulator_switch_stack, .-fla_emulator_switch_stack
)");

void* make_stack(char*, char* top, void (*entry)()) {
  constexpr int kLinkRegister = 11;  // of the twenty slots
  auto* slots = reinterpret_cast<void**>(reinterpret_cast<uintptr_t>(top) & ~uintptr_t{15}) - 20;
  std::memset(slots, 0, 20 * sizeof *slots);
  slots[kLinkRegister] = reinterpret_cast<void*>(entry);
  return slots;
}

void switch_stack(void** from, void* to) { fla_emulator_switch_stack(from, to); }

#else

// The context lies on the stack it belongs to, so that a stack pointer names it.
void* make_stack(char* bottom, char* top, void (*entry)()) {
  auto* context =
      reinterpret_cast<ucontext_t*>((reinterpret_cast<uintptr_t>(top) - sizeof(ucontext_t)) & ~uintptr_t{63});
  getcontext(context);
  context->uc_stack.ss_sp = bottom;
  context->uc_stack.ss_size = static_cast<size_t>(reinterpret_cast<char*>(context) - bottom);
  context->uc_link = nullptr;
  makecontext(context, entry, 0);
  return context;
}

void switch_stack(void** from, void* to) {
  ucontext_t here;
  *from = &here;
  swapcontext(&here, static_cast<ucontext_t*>(to));
}

#endif

}  // namespace fla::detail::emulator
