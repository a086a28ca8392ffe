// What memory holds before a kernel runs, so that everything the kernel did not write is recognised
// afterwards.
#pragma once

#include <cstddef>
#include <cstdint>

#include "fla/tensor.h"

namespace fla::harness {

// Every case runs once with each: NaN shows what was never written, large finite numbers show what a maximum
// or a comparison would hide, and the results must not differ in one bit.
enum class Poison { nan, large };

// The poison of elements [first, first + count) of a tensor. Floats: quiet NaN 0x7fc1..., or large numbers of
// alternating sign; integers: 0xa5 or 0x5a bytes.
void fill_poison(Poison, DType, int64_t first, int64_t count, void* bytes);
// Index of the first element in `bytes` that is not the poison of [first, first + count), or -1.
int64_t find_unpoisoned(Poison, DType, int64_t first, int64_t count, const void* bytes);

// Guard bands: every byte a hash of its address, the case and the poison, so that no kernel writes the right
// value by chance and none reads the same value in both runs.
void fill_guard(uint64_t seed, uintptr_t address, size_t count, void* bytes);

// 64-bit content hash, seeded; not cryptographic.
uint64_t hash_bytes(uint64_t seed, const void* bytes, size_t count);

}  // namespace fla::harness
