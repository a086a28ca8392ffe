// What fill=every does with one element, on whatever device: compiled by nvcc in every_input.cu, for the emulator's memory in
// every_input_emulator.cpp.
#pragma once

#include "harness/every_input.h"
#include "harness/stored_value.h"
#include "reference/activation.h"

namespace fla::harness::elements {

using reference::Bound;

constexpr int64_t place(const Tensor& t, int64_t i) {
  return i / t.size[1] * t.stride[0] + i % t.size[1] * t.stride[1];
}

constexpr double read(const Tensor& t, int64_t i) {
  const int64_t at = place(t, i);
  if (t.dtype == DType::f32) return static_cast<double>(static_cast<const float*>(t.data)[at]);
  const uint16_t bits = static_cast<const uint16_t*>(t.data)[at];
  return t.dtype == DType::f16 ? f16_value(bits) : bf16_value(bits);
}

constexpr void write_bits(const Tensor& t, int64_t i, uint32_t bits) {
  const int64_t at = place(t, i);
  if (t.dtype == DType::f32) static_cast<uint32_t*>(t.data)[at] = bits;
  else static_cast<uint16_t*>(t.data)[at] = static_cast<uint16_t>(bits);
}

// +-1/2 ... +-15/8, exact in every dtype.
constexpr void write_upstream(const Tensor& t, int64_t i, uint64_t number) {
  const uint64_t h = (number + 1) * 0x9e3779b97f4a7c15u;
  const auto sign = static_cast<uint32_t>(h >> 63), octave = static_cast<uint32_t>(h >> 62 & 1);
  const auto eighths = static_cast<uint32_t>(h >> 59 & 7);
  switch (t.dtype) {
    case DType::f32: return write_bits(t, i, sign << 31 | (126 + octave) << 23 | eighths << 20);
    case DType::bf16: return write_bits(t, i, sign << 15 | (126 + octave) << 7 | eighths << 4);
    default: return write_bits(t, i, sign << 15 | (14 + octave) << 10 | eighths << 7);
  }
}

constexpr void write_pair(const Tensor& x, const Tensor& y, int64_t i, uint64_t number) {
  write_bits(x, i, input_bits(number) >> 16);
  write_bits(y, i, input_bits(number) & 0xffff);
}

constexpr void fill(const ActivationForward& a, int64_t i, uint64_t number) { write_bits(a.x, i, input_bits(number)); }
constexpr void fill(const ActivationBackward& a, int64_t i, uint64_t number) {
  write_bits(a.x, i, input_bits(number));
  write_upstream(a.dy, i, number);
}
constexpr void fill(const GluForward& a, int64_t i, uint64_t number) { write_pair(a.x, a.y, i, number); }
constexpr void fill(const GluBackward& a, int64_t i, uint64_t number) {
  write_pair(a.x, a.y, i, number);
  write_upstream(a.dz, i, number);
}

// Calls visit(output tensor, expected) for every output of the element.
template <class Visit>
constexpr void for_outputs(const ActivationForward& a, int64_t i, Visit visit) {
  visit(a.y, reference::activation(a.kind, a.x.dtype, Bound(read(a.x, i)), Bound(a.temperature)));
}
template <class Visit>
constexpr void for_outputs(const ActivationBackward& a, int64_t i, Visit visit) {
  visit(a.dx, reference::activation_gradient(a, Bound(read(a.x, i)), Bound(read(a.dy, i))));
}
template <class Visit>
constexpr void for_outputs(const GluForward& a, int64_t i, Visit visit) {
  visit(a.z, reference::gated_value(a, Bound(read(a.x, i)), Bound(read(a.y, i))));
}
template <class Visit>
constexpr void for_outputs(const GluBackward& a, int64_t i, Visit visit) {
  const auto g = reference::glu_gradients(a, Bound(read(a.x, i)), Bound(read(a.y, i)), Bound(read(a.dz, i)));
  visit(a.dx, g.dx);
  visit(a.dy, g.dy);
  visit(a.z, g.z);
}

// Calls found(got, expected) for every output of element i that is wrong.
template <class A, class Found>
constexpr void judge(const A& a, int64_t i, Found found) {
  for_outputs(a, i, [&](const Tensor& t, const Bound& expected) {
    if (!t) return;
    const double got = read(t, i);
    const auto round = [&](double value) { return reference::rounded(t.dtype, value); };
    if (rounds_to(got, expected.v, expected.e, round)) return;
    if (expected.ambiguous && rounds_to(got, expected.other, expected.other_e, round)) return;
    found(got, expected);
  });
}

}  // namespace fla::harness::elements
