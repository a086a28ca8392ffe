// fla-check --self-test: faults planted on purpose, and the nets that must catch every one of them
// (reliability-and-numerics.md 2.15). Needs no GPU and no emulator: the kernels that err are the references.
//
//   L0 output     right answers with damage done to them, and calls that break the protocol
//   L1 semantics  operators that compute something else, or compute it badly
//   L3 harness    a checker, its files and its worker processes that fail themselves
//
// Faults in kernel sources (L2) need a build of their own: scripts/mutants.
#pragma once

namespace fla::harness {

// Prints which net caught what, and how small an error is always caught. Returns kPassed, or kSelfTestFailed
// when a fault escaped or something right was reported. `verbose` prints every planted fault.
int run_self_test(bool verbose);

}  // namespace fla::harness
