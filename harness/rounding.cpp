// Storage dtypes on the host: rounding, spacing, encoding. In double throughout, so that the one rounding is the last step.
#include <bit>
#include <cmath>
#include <cstring>

#include "harness/problem.h"
#include "harness/stored_value.h"

namespace fla::harness {
namespace {

struct Format {
  int precision;         // significant bits, the implicit one included
  int smallest_exponent; // of a normal number 1.x * 2^e
  double largest;
};

Format format_of(DType type) {
  switch (type) {
    case DType::f16: return {11, -14, 65504.0};
    case DType::bf16: return {8, -126, 0x1.fep127};
    case DType::f32: return {24, -126, 0x1.fffffep127};
    case DType::f8e4m3: return {4, -6, 448.0};
    default: return {53, -1022, 0x1.fffffffffffffp1023};
  }
}

double spacing_at(const Format& f, double magnitude) {
  int exponent = 0;
  std::frexp(magnitude, &exponent);  // magnitude = m * 2^exponent, m in [0.5, 1)
  const int lead = magnitude == 0 ? f.smallest_exponent : std::max(exponent - 1, f.smallest_exponent);
  return std::ldexp(1.0, lead - f.precision + 1);
}

uint16_t f16_bits(double value) {
  const uint16_t sign = std::signbit(value) ? 0x8000 : 0;
  const double magnitude = std::fabs(value);
  if (std::isnan(value)) return 0x7e00;
  if (std::isinf(magnitude)) return sign | 0x7c00;
  if (magnitude < 0x1p-14) return sign | static_cast<uint16_t>(std::ldexp(magnitude, 24));
  int exponent = 0;
  const double m = std::frexp(magnitude, &exponent);
  return static_cast<uint16_t>(sign | ((exponent + 14) << 10) | (static_cast<int>(std::ldexp(m, 11)) & 0x3ff));
}

// The value of a code: sign, 4 bits of exponent, 3 of fraction. The largest code of either sign is NaN.
double f8e4m3_value(uint8_t bits) {
  const int exponent = (bits >> 3) & 15, fraction = bits & 7;
  double magnitude = exponent == 0 ? std::ldexp(fraction, -9) : std::ldexp(fraction + 8, exponent - 10);
  if ((bits & 0x7f) == 0x7f) magnitude = NAN;
  return bits & 0x80 ? -magnitude : magnitude;
}

// Of a value that the dtype has.
uint8_t f8e4m3_bits(double value) {
  const auto sign = static_cast<uint8_t>(std::signbit(value) ? 0x80 : 0);
  if (std::isnan(value)) return 0x7f;
  const double magnitude = std::fabs(value);
  if (magnitude < 0x1p-6) return sign | static_cast<uint8_t>(std::ldexp(magnitude, 9));
  int exponent = 0;
  const double m = std::frexp(magnitude, &exponent);
  return static_cast<uint8_t>(sign | ((exponent + 6) << 3) | (static_cast<int>(std::ldexp(m, 4)) & 7));
}

template <class T>
void put(void* bytes, int64_t i, T value) {
  std::memcpy(static_cast<char*>(bytes) + i * static_cast<int64_t>(sizeof(T)), &value, sizeof value);
}
template <class T>
T get(const void* bytes, int64_t i) {
  T value;
  std::memcpy(&value, static_cast<const char*>(bytes) + i * static_cast<int64_t>(sizeof(T)), sizeof value);
  return value;
}

}  // namespace

double spacing(DType type, double value) {
  const Format f = format_of(type);
  return spacing_at(f, std::fmin(std::fabs(value), f.largest));
}

double round_to(DType type, double value) {
  if (type == DType::f64 || std::isnan(value) || value == 0) return value;
  if (type == DType::f8e4m3 && std::fabs(value) > 448) return std::copysign(448.0, value);
  if (std::isinf(value)) return value;
  if (type == DType::f32) return static_cast<double>(static_cast<float>(value));
  const Format f = format_of(type);
  const double step = spacing_at(f, std::fabs(value));
  const double rounded = std::nearbyint(value / step) * step;  // exact: steps are powers of two
  return std::fabs(rounded) > f.largest ? std::copysign(HUGE_VAL, value) : rounded;
}

void encode_real(DType type, double value, void* bytes, int64_t i) {
  switch (type) {
    case DType::f64: return put(bytes, i, value);
    case DType::f32: return put(bytes, i, static_cast<float>(value));
    case DType::f16: return put(bytes, i, f16_bits(round_to(type, value)));
    case DType::bf16: {
      const auto bits = std::bit_cast<uint32_t>(static_cast<float>(round_to(type, value)));
      return put(bytes, i, static_cast<uint16_t>((bits >> 16) | (std::isnan(value) ? 0x40 : 0)));
    }
    case DType::f8e4m3: return put(bytes, i, f8e4m3_bits(round_to(type, value)));
    case DType::i64: return put(bytes, i, static_cast<int64_t>(value));
    case DType::i32: return put(bytes, i, static_cast<int32_t>(value));
    case DType::i8: return put(bytes, i, static_cast<int8_t>(value));
    case DType::u8: return put(bytes, i, static_cast<uint8_t>(value));
  }
}

void encode_integer(DType type, int64_t value, void* bytes, int64_t i) {
  switch (type) {
    case DType::i64: return put(bytes, i, value);
    case DType::i32: return put(bytes, i, static_cast<int32_t>(value));
    default: return put(bytes, i, static_cast<uint8_t>(value));
  }
}

void encode(DType type, const HostTensor& t, int64_t first, int64_t count, void* bytes) {
  for (int64_t i = 0; i < count; ++i) {
    const auto at = static_cast<size_t>(first + i);
    if (is_float(type)) encode_real(type, t.real[at], bytes, i);
    else encode_integer(type, t.integer[at], bytes, i);
  }
}

void decode(DType type, const void* bytes, int64_t count, HostTensor& into, int64_t first) {
  auto& reals = into.real;
  auto& integers = into.integer;
  for (int64_t i = 0; i < count; ++i) {
    const auto at = static_cast<size_t>(first + i);
    switch (type) {
      case DType::f64: reals[at] = get<double>(bytes, i); break;
      case DType::f32: reals[at] = static_cast<double>(get<float>(bytes, i)); break;
      case DType::f16: reals[at] = f16_value(get<uint16_t>(bytes, i)); break;
      case DType::bf16: reals[at] = bf16_value(get<uint16_t>(bytes, i)); break;
      case DType::f8e4m3: reals[at] = f8e4m3_value(get<uint8_t>(bytes, i)); break;
      case DType::i64: integers[at] = get<int64_t>(bytes, i); break;
      case DType::i32: integers[at] = get<int32_t>(bytes, i); break;
      case DType::i8: integers[at] = get<int8_t>(bytes, i); break;
      case DType::u8: integers[at] = get<uint8_t>(bytes, i); break;
    }
  }
}

}  // namespace fla::harness
