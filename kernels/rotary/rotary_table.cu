// Rotary tables, on the host: a few million sines once per model, in fp64, so that long contexts keep their
// angles.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <numbers>
#include <vector>

#include "common/workspace.h"
#include "fla/rotary_table.h"
#include "fla/validate.h"

namespace fla {
namespace {

using namespace detail;

// Nearest number of the dtype, ties to even; overflow becomes infinity.
double round_to(DType type, double value) {
  if (type == DType::f32) return static_cast<double>(static_cast<float>(value));
  const int precision = type == DType::f16 ? 11 : 8, lowest = type == DType::f16 ? -24 : -133;
  const double largest = type == DType::f16 ? 65504.0 : 0x1.fep127;
  if (value == 0 || !std::isfinite(value)) return value;
  int exponent = 0;
  std::frexp(value, &exponent);
  const int unit = std::max(exponent - precision, lowest);
  const double nearest = std::ldexp(std::nearbyint(std::ldexp(value, -unit)), unit);
  return std::abs(nearest) <= largest ? nearest : std::copysign(HUGE_VAL, value);
}

void store(const Tensor& t, int64_t row, int64_t column, double value) {
  const int64_t index = row * t.stride[0] + column;
  const auto rounded = static_cast<float>(round_to(t.dtype, value));
  uint32_t bits = 0;
  std::memcpy(&bits, &rounded, sizeof bits);
  if (t.dtype == DType::f32) {
    static_cast<float*>(t.data)[index] = rounded;
    return;
  }
  auto* out = static_cast<uint16_t*>(t.data) + index;
  if (t.dtype == DType::bf16) {
    *out = static_cast<uint16_t>(bits >> 16);
    return;
  }
  // f16 from an fp32 number that it can hold.
  const uint32_t sign = bits >> 16 & 0x8000u, magnitude = bits & 0x7fffffffu;
  if (magnitude >= 0x7f800000u)
    *out = static_cast<uint16_t>(sign | (magnitude > 0x7f800000u ? 0x7e00u : 0x7c00u));
  else if (magnitude >= 0x38800000u) *out = static_cast<uint16_t>(sign | (magnitude - 0x38000000u) >> 13);
  else *out = static_cast<uint16_t>(sign | static_cast<uint32_t>(std::ldexp(std::abs(rounded), 24)));
}

double raised(double base, int64_t j, int64_t dim) {
  return std::pow(base, -2 * static_cast<double>(j) / static_cast<double>(dim));
}

// The base that stretches the slowest frequency by s and leaves the fastest alone; of two channels there is
// but one.
double ntk_base(const RotaryTable& a, double s) {
  const auto d = static_cast<double>(a.dim);
  return a.dim > 2 ? a.base * std::pow(s, d / (d - 2)) : a.base;
}

int64_t length_of(const RotaryTable& a) {
  return a.length > 0 ? a.length : a.cos.size[0];
}

double dynamic_base(const RotaryTable& a) {
  const double length = std::fmax(static_cast<double>(length_of(a)), a.original_length);
  return ntk_base(a, a.factor * length / a.original_length - (a.factor - 1));
}

double llama3(const RotaryTable& a, double e) {
  const double turns = a.original_length * e / (2 * std::numbers::pi);  // in the original length
  if (turns > a.high_frequency) return e;
  if (turns < a.low_frequency) return e / a.factor;
  const double g = (turns - a.low_frequency) / (a.high_frequency - a.low_frequency);
  return e * ((1 - g) / a.factor + g);
}

double yarn(const RotaryTable& a, int64_t j, double e) {
  const auto pair_that_turns = [&](double times) {
    return static_cast<double>(a.dim) * std::log(a.original_length / (2 * std::numbers::pi * times)) /
           (2 * std::log(a.base));
  };
  double low = pair_that_turns(a.beta_fast), high = pair_that_turns(a.beta_slow);
  if (a.truncate) {
    low = std::floor(low);
    high = std::ceil(high);
  }
  low = std::fmax(low, 0);
  high = std::fmin(high, static_cast<double>(a.dim - 1));
  if (low == high) high += 0.001;
  const double ramp = std::clamp((static_cast<double>(j) - low) / (high - low), 0.0, 1.0);
  return e * ((1 - ramp) + ramp / a.factor);
}

double frequency(const RotaryTable& a, int64_t j) {
  const double e = raised(a.base, j, a.dim);
  switch (a.rope_type) {
    case RopeType::linear: return e / a.factor;
    case RopeType::ntk: return raised(ntk_base(a, a.factor), j, a.dim);
    case RopeType::dynamic: return raised(dynamic_base(a), j, a.dim);
    case RopeType::llama3: return llama3(a, e);
    case RopeType::yarn: return yarn(a, j, e);
    case RopeType::longrope: {
      const bool is_long = static_cast<double>(length_of(a)) > a.original_length;
      return e / (is_long ? a.long_factors : a.short_factors)[j];
    }
    case RopeType::proportional: {
      const auto turning = static_cast<int64_t>(a.proportion * static_cast<double>(a.dim) / 2);
      return j < turning ? e / a.factor : 0;
    }
    case RopeType::linspace:
      return a.dim > 2 ? std::pow(a.base, -static_cast<double>(j) / static_cast<double>(a.dim / 2 - 1)) : 1;
    default: return e;
  }
}

double attention_factor(const RotaryTable& a) {
  const auto m = [&](double k) { return a.factor <= 1 ? 1 : 0.1 * k * std::log(a.factor) + 1; };
  const bool scaled = a.rope_type == RopeType::yarn || a.rope_type == RopeType::longrope;
  if (!scaled) return 1;
  if (a.attention_factor != 0) return a.attention_factor;
  if (a.rope_type == RopeType::longrope)
    return a.factor <= 1 ? 1 : std::sqrt(1 + std::log(a.factor) / std::log(a.original_length));
  return a.mscale != 0 && a.mscale_all_dim != 0 ? m(a.mscale) / m(a.mscale_all_dim) : m(1);
}

// p f, rounded as the mode says.
double angle(const RotaryTable& a, int64_t p, double f) {
  const auto position = static_cast<double>(p);
  if (a.mode == RopeMode::exact) return position * f;
  const auto rounded = [&](double x) { return round_to(a.pos_dtype, round_to(DType::f32, x)); };
  return rounded(rounded(position) * rounded(f));
}

// The factor of q's tables at position p; k's are divided by it.
double xpos_factor(const RotaryTable& a, int64_t p, int64_t j) {
  const auto dim = static_cast<double>(a.dim);
  const int64_t center = a.xpos_center >= 0 ? a.xpos_center : a.cos.size[0] / 2;
  const double z = (2 * static_cast<double>(j) + 0.4 * dim) / (1.4 * dim);
  return std::pow(z, static_cast<double>(p - center) / a.scale_base);
}

Status refuse(const char* name, double value) {
  return error(StatusCode::invalid_argument, "%s: %g is outside what it may be", name, value);
}

struct Bounded {
  const char* name;
  double value, above, most;  // above < value <= most
};

Status check_numbers(const RotaryTable& a) {
  constexpr double kMost = 1e300;
  const Bounded numbers[] = {
      {"base", a.base, a.rope_type == RopeType::yarn ? 1.0 : 0.0, kMost},
      {"scale_base", a.scale_base, 0, kMost},
      {"original_length", a.original_length, a.rope_type == RopeType::longrope ? 1.0 : 0.0, kMost},
      {"low_frequency", a.low_frequency, 0, kMost},
      {"high_frequency", a.high_frequency, a.low_frequency, kMost},
      {"beta_fast", a.beta_fast, 0, kMost},
      {"beta_slow", a.beta_slow, 0, kMost},
      {"attention_factor", a.attention_factor, -kMost, kMost},
      {"mscale", a.mscale, -kMost, kMost},
      {"mscale_all_dim", a.mscale_all_dim, -kMost, kMost}};
  for (const Bounded& n : numbers)
    if (!(n.value > n.above && n.value <= n.most)) return refuse(n.name, n.value);
  if (!(a.factor >= 1 && a.factor <= kMost)) return refuse("factor", a.factor);
  if (!(a.proportion >= 0 && a.proportion <= 1)) return refuse("proportion", a.proportion);
  if (a.length < 0) return refuse("length", static_cast<double>(a.length));
  if (a.xpos_center < -1) return refuse("xpos_center", static_cast<double>(a.xpos_center));
  return {};
}

Status check_extension(const RotaryTable& a) {
  for (const auto& [name, factors] :
       {std::pair{"short_factors", a.short_factors}, {"long_factors", a.long_factors}}) {
    if (!factors) return error(StatusCode::null_pointer, "%s: required by longrope", name);
    for (int64_t j = 0; j < a.dim / 2; ++j)
      if (!(factors[j] > 0)) return refuse(name, factors[j]);
  }
  return {};
}

}  // namespace

Status check(const RotaryTable& a) {
  if (a.dim < 0 || a.dim % 2 != 0 || a.dim != 2 * a.cos.size[1])
    return error(StatusCode::invalid_argument, "dim: %lld, expected twice the R = %lld columns of cos",
                 static_cast<long long>(a.dim), static_cast<long long>(a.cos.size[1]));
  if (a.rope_type < RopeType::standard || a.rope_type > RopeType::linspace)
    return error(StatusCode::invalid_argument, "rope_type: unknown value %d", static_cast<int>(a.rope_type));
  if (a.mode != RopeMode::exact && a.mode != RopeMode::fp32_compat)
    return error(StatusCode::invalid_argument, "mode: unknown value %d", static_cast<int>(a.mode));
  if (a.pos_dtype != DType::f32 && a.pos_dtype != DType::f16 && a.pos_dtype != DType::bf16)
    return error(StatusCode::unsupported_dtype, "pos_dtype: %s is not supported", name_of(a.pos_dtype));
  if (a.mode == RopeMode::exact && a.pos_dtype != DType::f32)
    return error(StatusCode::unsupported_combination, "pos_dtype: %s in exact mode", name_of(a.pos_dtype));
  if (a.xpos != static_cast<bool>(a.cos_k) || (a.cos_k && !a.sin_k))
    return error(StatusCode::unsupported_combination, "cos_k: goes with sin_k and xpos");
  if (Status s = check_numbers(a); !s.ok()) return s;
  return a.rope_type == RopeType::longrope ? check_extension(a) : Status{};
}

Status build(const RotaryTable& a) {
  if (Status s = validate(a); !s.ok()) return s;
  const double scale = attention_factor(a);
  for (int64_t j = 0; j < a.dim / 2; ++j) {
    const double f = frequency(a, j);
    for (int64_t p = 0; p < a.cos.size[0]; ++p) {
      const double turned = angle(a, p, f), g = a.xpos ? xpos_factor(a, p, j) : 1;
      const double c = scale * std::cos(turned), s = scale * std::sin(turned);
      store(a.cos, p, j, c * g);
      store(a.sin, p, j, s * g);
      if (!a.xpos) continue;
      store(a.cos_k, p, j, c / g);
      store(a.sin_k, p, j, s / g);
    }
  }
  return {};
}

}  // namespace fla
