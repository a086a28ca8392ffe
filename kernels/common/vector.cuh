// Storage types and the only loads and stores that kernels use.
//
// Vector<T, N> is N consecutive elements held packed, as they lie in memory: a 16-byte vector of bf16 costs four
// registers until it is unpacked to float. load/store need the address aligned to the vector (at most 16 bytes; longer
// vectors travel in 16-byte pieces); the caller chooses N from the alignment of what it was given.
#pragma once

#include <cstdint>
#include <cstring>

#include "common/gpu.h"
#include "fla/tensor.h"

namespace fla::detail {

struct bf16 {
  uint16_t bits;
};
struct f16 {
  uint16_t bits;
};

template <class T>
inline constexpr DType kDTypeOf = DType::f32;
template <>
inline constexpr DType kDTypeOf<f16> = DType::f16;
template <>
inline constexpr DType kDTypeOf<bf16> = DType::bf16;

FLA_HOST_DEVICE float float_of_bits(uint32_t bits) {
#if defined(FLA_GPU) && defined(__CUDA_ARCH__)
  return __uint_as_float(bits);
#else
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
#endif
}

FLA_HOST_DEVICE uint32_t bits_of_float(float value) {
#if defined(FLA_GPU) && defined(__CUDA_ARCH__)
  return __float_as_uint(value);
#else
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof bits);
  return bits;
#endif
}

#if defined(FLA_GPU)
FLA_DEVICE uint32_t f32_bits_of(float value) { return bits_of_float(value); }
#else
// Portable conversions for the emulator, round to nearest even. NaN becomes the one that a GPU makes: a CPU's has the sign
// of whichever operand the compiler put first.
inline uint32_t f32_bits_of(float value) { return value != value ? 0x7fffffffu : bits_of_float(value); }

inline uint16_t f16_bits_of(float value) {
  const uint32_t bits = bits_of_float(value), sign = (bits >> 16) & 0x8000u, magnitude = bits & 0x7fffffffu;
  if (magnitude > 0x7f800000u) return 0x7fffu;
  if (magnitude >= 0x477ff000u) return static_cast<uint16_t>(sign | 0x7c00u);  // 65520 and beyond
  if (magnitude < 0x38800000u) {  // below the smallest normal: let the fp32 adder round at 2^-24
    const float shifted = float_of_bits(magnitude) + 0.5f;
    return static_cast<uint16_t>(sign | (bits_of_float(shifted) - 0x3f000000u));
  }
  const uint32_t odd = (magnitude >> 13) & 1;
  return static_cast<uint16_t>(sign | ((magnitude - 0x38000000u + 0xfffu + odd) >> 13));
}

inline float float_of_f16_bits(uint16_t half) {
  const uint32_t sign = (half & 0x8000u) << 16, magnitude = half & 0x7fffu;
  if (magnitude >= 0x7c00u) return float_of_bits(sign | 0x7f800000u | ((magnitude & 0x3ffu) << 13));
  if (magnitude < 0x400u) {
    const float value = static_cast<float>(magnitude) * 5.9604644775390625e-8f;  // 2^-24
    return sign ? -value : value;
  }
  return float_of_bits(sign | ((magnitude << 13) + 0x38000000u));
}

inline uint16_t bf16_bits_of(float value) {
  const uint32_t bits = bits_of_float(value);
  if ((bits & 0x7fffffffu) > 0x7f800000u) return 0x7fffu;
  return static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1)) >> 16);
}
#endif

FLA_DEVICE float to_float(float x) { return x; }
FLA_DEVICE float to_float(bf16 x) { return float_of_bits(static_cast<uint32_t>(x.bits) << 16); }
FLA_DEVICE float to_float(f16 x) {
#if defined(FLA_GPU)
  float value;
  asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(x.bits));
  return value;
#else
  return float_of_f16_bits(x.bits);
#endif
}

// One rounding, to nearest even; overflow becomes infinity.
template <class T>
FLA_DEVICE T from_float(float value);
template <>
FLA_DEVICE float from_float<float>(float value) {
  return value;
}
template <>
FLA_DEVICE bf16 from_float<bf16>(float value) {
#if defined(FLA_GPU)
  bf16 x;
#if __CUDA_ARCH__ >= 900
  asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(x.bits) : "f"(value));
#else
  uint32_t pair;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(0.0f), "f"(value));
  x.bits = static_cast<uint16_t>(pair);
#endif
  return x;
#else
  return {bf16_bits_of(value)};
#endif
}
template <>
FLA_DEVICE f16 from_float<f16>(float value) {
#if defined(FLA_GPU)
  f16 x;
  asm("cvt.rn.f16.f32 %0, %1;" : "=h"(x.bits) : "f"(value));
  return x;
#else
  return {f16_bits_of(value)};
#endif
}

// Two elements in one 32-bit word, the first in the low half.
template <class T>
FLA_DEVICE uint32_t pack_pair(float low, float high) {
#if defined(FLA_GPU)
  uint32_t pair;
  if constexpr (kDTypeOf<T> == DType::bf16)
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
  else
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(pair) : "f"(high), "f"(low));
  return pair;
#else
  return from_float<T>(low).bits | static_cast<uint32_t>(from_float<T>(high).bits) << 16;
#endif
}

template <class T>
FLA_DEVICE void unpack_pair(uint32_t pair, float& low, float& high) {
  if constexpr (kDTypeOf<T> == DType::bf16) {
    low = float_of_bits(pair << 16);
    high = float_of_bits(pair & 0xffff0000u);
  } else {
    low = to_float(f16{static_cast<uint16_t>(pair)});
    high = to_float(f16{static_cast<uint16_t>(pair >> 16)});
  }
}

template <class T, int N>
struct Vector {
  static constexpr int kBytes = N * static_cast<int>(sizeof(T));
  static_assert(kBytes == 2 || kBytes % 4 == 0);
  uint32_t words[kBytes < 4 ? 1 : kBytes / 4];
};

template <class T, int N>
FLA_DEVICE Vector<T, N> load(const T* p) {
  using V = Vector<T, N>;
  V v;
#if !defined(FLA_GPU)
  emulator::check_aligned(p, V::kBytes < 16 ? V::kBytes : 16);
  emulator::on_load(p, V::kBytes);
#endif
  if constexpr (V::kBytes >= 16) {
    static_assert(V::kBytes % 16 == 0);
    FLA_UNROLL
    for (int i = 0; i < V::kBytes / 16; ++i) {
      const uint4 w = reinterpret_cast<const uint4*>(p)[i];
      v.words[4 * i] = w.x;
      v.words[4 * i + 1] = w.y;
      v.words[4 * i + 2] = w.z;
      v.words[4 * i + 3] = w.w;
    }
  } else if constexpr (V::kBytes == 8) {
    const uint2 w = *reinterpret_cast<const uint2*>(p);
    v.words[0] = w.x;
    v.words[1] = w.y;
  } else if constexpr (V::kBytes == 4) {
    v.words[0] = *reinterpret_cast<const uint32_t*>(p);
  } else {
    v.words[0] = *reinterpret_cast<const uint16_t*>(p);
  }
  return v;
}

// One instruction each. Written as an assignment of a uint4, the store is split into words and in about half of our
// kernels (seen in their machine code, nvcc 13.0) never put together again. Generic addresses: shared memory too.
FLA_DEVICE void store_words(uint4* p, uint32_t x, uint32_t y, uint32_t z, uint32_t w) {
#if defined(FLA_GPU)
  asm volatile("st.v4.b32 [%0], {%1, %2, %3, %4};" ::"l"(p), "r"(x), "r"(y), "r"(z), "r"(w) : "memory");
#else
  *p = make_uint4(x, y, z, w);
#endif
}

FLA_DEVICE void store_words(uint2* p, uint32_t x, uint32_t y) {
#if defined(FLA_GPU)
  asm volatile("st.v2.b32 [%0], {%1, %2};" ::"l"(p), "r"(x), "r"(y) : "memory");
#else
  *p = make_uint2(x, y);
#endif
}

template <class T, int N>
FLA_DEVICE void store(T* p, const Vector<T, N>& v) {
  using V = Vector<T, N>;
#if !defined(FLA_GPU)
  emulator::check_aligned(p, V::kBytes < 16 ? V::kBytes : 16);
  emulator::on_store(p, V::kBytes);
#endif
  if constexpr (V::kBytes >= 16) {
    FLA_UNROLL
    for (int i = 0; i < V::kBytes / 16; ++i)
      store_words(reinterpret_cast<uint4*>(p) + i, v.words[4 * i], v.words[4 * i + 1], v.words[4 * i + 2],
                  v.words[4 * i + 3]);
  } else if constexpr (V::kBytes == 8) {
    store_words(reinterpret_cast<uint2*>(p), v.words[0], v.words[1]);
  } else if constexpr (V::kBytes == 4) {
    *reinterpret_cast<uint32_t*>(p) = v.words[0];
  } else {
    *reinterpret_cast<uint16_t*>(p) = static_cast<uint16_t>(v.words[0]);
  }
}

template <class T, int N>
FLA_DEVICE void unpack(const Vector<T, N>& v, float (&out)[N]) {
  if constexpr (sizeof(T) == 4) {
    FLA_UNROLL
    for (int i = 0; i < N; ++i) out[i] = float_of_bits(v.words[i]);
  } else if constexpr (N == 1) {
    out[0] = to_float(T{static_cast<uint16_t>(v.words[0])});
  } else {
    FLA_UNROLL
    for (int i = 0; i < N / 2; ++i) unpack_pair<T>(v.words[i], out[2 * i], out[2 * i + 1]);
  }
}

template <class T, int N>
FLA_DEVICE Vector<T, N> pack(const float (&in)[N]) {
  Vector<T, N> v;
  if constexpr (sizeof(T) == 4) {
    FLA_UNROLL
    for (int i = 0; i < N; ++i) v.words[i] = f32_bits_of(in[i]);
  } else if constexpr (N == 1) {
    v.words[0] = from_float<T>(in[0]).bits;
  } else {
    FLA_UNROLL
    for (int i = 0; i < N / 2; ++i) v.words[i] = pack_pair<T>(in[2 * i], in[2 * i + 1]);
  }
  return v;
}

template <class T, int N>
FLA_DEVICE Vector<T, N> zero_vector() {
  Vector<T, N> v = {};
  return v;
}

template <int N, class T>
FLA_DEVICE void load_floats(const T* p, float (&out)[N]) {
  unpack(load<T, N>(p), out);
}

template <int N, class T>
FLA_DEVICE void store_floats(T* p, const float (&in)[N]) {
  store(p, pack<T, N>(in));
}

// A pointer whose float dtype is known at run time only: weights, biases and other side tensors, where a branch that
// the whole grid takes alike is cheaper than a kernel per dtype.
struct AnyFloat {
  void* data = nullptr;
  DType dtype = DType::f32;

  FLA_HOST_DEVICE explicit operator bool() const { return data != nullptr; }
};

inline AnyFloat any_float(const Tensor& t) { return {t.data, t.dtype}; }

template <int N>
FLA_DEVICE void load_floats(const AnyFloat& p, int64_t index, float (&out)[N]) {
  if (p.dtype == DType::bf16) load_floats(static_cast<const bf16*>(p.data) + index, out);
  else if (p.dtype == DType::f32) load_floats(static_cast<const float*>(p.data) + index, out);
  else load_floats(static_cast<const f16*>(p.data) + index, out);
}

template <int N>
FLA_DEVICE void store_floats(const AnyFloat& p, int64_t index, const float (&in)[N]) {
  if (p.dtype == DType::bf16) store_floats(static_cast<bf16*>(p.data) + index, in);
  else if (p.dtype == DType::f32) store_floats(static_cast<float*>(p.data) + index, in);
  else store_floats(static_cast<f16*>(p.data) + index, in);
}

FLA_DEVICE float load_float(const AnyFloat& p, int64_t index) {
  float value[1];
  load_floats(p, index, value);
  return value[0];
}

FLA_DEVICE void store_float(const AnyFloat& p, int64_t index, float value) {
  const float values[1] = {value};
  store_floats(p, index, values);
}

template <class T>
FLA_DEVICE float load_float(const T* p) {
  float value[1];
  load_floats(p, value);
  return value[0];
}

template <class T>
FLA_DEVICE void store_float(T* p, float value) {
  const float values[1] = {value};
  store_floats(p, values);
}

// Integers of either index dtype.
struct AnyIndex {
  const void* data = nullptr;
  DType dtype = DType::i64;

  FLA_HOST_DEVICE explicit operator bool() const { return data != nullptr; }
};

inline AnyIndex any_index(const Tensor& t) { return {t.data, t.dtype}; }

FLA_DEVICE int64_t load_index(const AnyIndex& p, int64_t index) {
  if (p.dtype == DType::i32) {
#if !defined(FLA_GPU)
    emulator::on_load(static_cast<const int32_t*>(p.data) + index, 4);
#endif
    return static_cast<const int32_t*>(p.data)[index];
  }
#if !defined(FLA_GPU)
  emulator::on_load(static_cast<const int64_t*>(p.data) + index, 8);
#endif
  return static_cast<const int64_t*>(p.data)[index];
}

}  // namespace fla::detail
