// The switch from one stack to another: a dozen instructions on x86-64 and AArch64. (swapcontext, which saves
// the signal mask by a system call, takes ten times as long; it serves the other machines.)
#pragma once

namespace fla::detail::emulator {

// The stack pointer of a new stack [bottom, top): the first switch to it calls entry(), which must never
// return.
void* make_stack(char* bottom, char* top, void (*entry)());

// Saves where the caller stands in *from and goes on where `to` was saved.
void switch_stack(void** from, void* to);

}  // namespace fla::detail::emulator
