// 8-bit floats as kernels write them: E4M3, biased by 7, no infinities, the largest code of either sign NaN.
#pragma once

#include "common/vector.cuh"

namespace fla::detail {

struct f8e4m3 {
  uint8_t bits;
};

inline constexpr float kLargestF8e4m3 = 448.0f;

// To nearest even, beyond +-448 to +-448; NaN becomes the positive one, as the hardware's does.
FLA_HOST_DEVICE uint8_t f8e4m3_bits_of(float value) {
  const uint32_t bits = bits_of_float(value), sign = (bits >> 24) & 0x80u, magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) return 0x7f;
  if (magnitude >= 0x43e00000u) return static_cast<uint8_t>(sign | 0x7eu);  // 448 and beyond
  if (magnitude < 0x3c800000u)  // below the smallest normal, 2^-6: let the fp32 adder round at 2^-9
    return static_cast<uint8_t>(sign | (bits_of_float(float_of_bits(magnitude) + 16384.0f) - 0x46800000u));
  const uint32_t odd = (magnitude >> 20) & 1;
  return static_cast<uint8_t>(sign | ((magnitude - 0x3c000000u + 0x7ffffu + odd) >> 20));
}

// Four elements in one 32-bit word, the first in the lowest byte.
FLA_DEVICE uint32_t pack_f8e4m3(float a, float b, float c, float d) {
#if defined(FLA_GPU) && __CUDA_ARCH__ >= 890
  uint16_t low, high;
  asm("cvt.rn.satfinite.e4m3x2.f32 %0, %1, %2;" : "=h"(low) : "f"(b), "f"(a));
  asm("cvt.rn.satfinite.e4m3x2.f32 %0, %1, %2;" : "=h"(high) : "f"(d), "f"(c));
  return low | static_cast<uint32_t>(high) << 16;
#else
  auto byte = [](float value, int place) { return static_cast<uint32_t>(f8e4m3_bits_of(value)) << (8 * place); };
  return byte(a, 0) | byte(b, 1) | byte(c, 2) | byte(d, 3);
#endif
}

FLA_DEVICE void store_f8e4m3(f8e4m3* p, const float (&in)[8]) {
  Vector<f8e4m3, 8> v;
  v.words[0] = pack_f8e4m3(in[0], in[1], in[2], in[3]);
  v.words[1] = pack_f8e4m3(in[4], in[5], in[6], in[7]);
  store(p, v);
}

FLA_DEVICE void store_f8e4m3(f8e4m3* p, float value) {
#if !defined(FLA_GPU)
  emulator::on_store(p, 1);
#endif
  p->bits = static_cast<uint8_t>(pack_f8e4m3(value, 0.0f, 0.0f, 0.0f));
}

}  // namespace fla::detail
