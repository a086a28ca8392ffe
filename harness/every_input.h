// Every input there is, judged where the kernel runs (reliability-and-numerics.md 2.12): all 2^32 inputs of a unary activation
// in f32, all 2^32 pairs of a gated unit in 16 bits. They are too many for the host, so the device itself makes the inputs
// and judges the outputs, a slice at a time, by the reference's own text.
#pragma once

#include <cstdint>

#include "harness/case.h"
#include "harness/device.h"
#include "harness/problem.h"
#include "harness/result.h"

namespace fla::harness {

// Outputs that no correct rounding of the answer gives. `got`, `expected` and `bound` are those of one of them, and only of
// use when a single element was judged.
struct EveryInputTally {
  unsigned long long outside = 0, first = ~0ull;  // how many; the lowest element that has one
  double got = 0, expected = 0, bound = 0;
};

// For one argument struct, whose tensors are [M, C] with any strides in the memory of the device that the program is linked
// with. Element i is the i-th in row-major order.
struct EveryInput {
  // Stores the inputs of number `first`, `first` + 1, ..., and upstream gradients of magnitude 1/2 to 2.
  void (*fill)(const void* args, uint64_t first, Stream);
  // Adds what it finds in the outputs of elements [from, to) to a tally in the device's memory.
  void (*judge)(const void* args, int64_t from, int64_t to, EveryInputTally*, Stream);
};
extern const EveryInput kEveryActivationForward, kEveryActivationBackward, kEveryGluForward, kEveryGluBackward;

// The bits that stand for an input's number, in one word of 32 bits, or in two halves of which the first input holds the high one.
// Neighbours lie far apart, so that a part of all inputs is spread over all.
constexpr uint32_t input_bits(uint64_t number) { return static_cast<uint32_t>(number) * 0x9e3779b9u; }

// Why fill=every means nothing for this problem: it takes a direction with a judge, and inputs that are 32 bits an element
// together. Empty when it does.
std::string why_not_every_input(const Problem&);

// The protocol of fill=every: as many slices of the case's [M, C] as hold every input, or as the key `slices` says.
Result check_every_input(const Case&, Device&);

}  // namespace fla::harness
