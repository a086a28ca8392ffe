// Every type of scaling against its published formula, written here again and otherwise than in the library.
#include "fla/rotary_table.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <functional>
#include <numbers>
#include <vector>

namespace fla {
namespace {

constexpr int64_t kRows = 70, kDim = 16, kPairs = kDim / 2;
constexpr long double kPi = std::numbers::pi_v<long double>;

struct Tables {
  std::vector<float> cos, sin, cos_k, sin_k;
  RotaryTable args;

  explicit Tables(int64_t dim = kDim, int64_t rows = kRows)
      : cos(static_cast<size_t>(rows * dim / 2)), sin(cos), cos_k(cos), sin_k(cos) {
    args.cos = dense(cos.data(), DType::f32, {rows, dim / 2});
    args.sin = dense(sin.data(), DType::f32, {rows, dim / 2});
    args.dim = dim;
  }
  void use_xpos() {
    args.xpos = true;
    args.cos_k = dense(cos_k.data(), DType::f32, {args.cos.size[0], args.dim / 2});
    args.sin_k = dense(sin_k.data(), DType::f32, {args.cos.size[0], args.dim / 2});
  }
};

using Frequency = std::function<long double(int64_t j)>;

long double power(long double base, int64_t j, int64_t dim = kDim) {
  return 1 / std::pow(base, 2.0L * static_cast<long double>(j) / static_cast<long double>(dim));
}

// fp32 holds the nearest number; fp64 underway costs p f 2^-53 of the angle.
void expect_tables(Tables& t, const Frequency& f, long double scale = 1) {
  const Status s = build(t.args);
  ASSERT_TRUE(s.ok()) << s.text;
  const int64_t rows = t.args.cos.size[0], pairs = t.args.dim / 2;
  for (int64_t p = 0; p < rows; ++p) {
    for (int64_t j = 0; j < pairs; ++j) {
      const long double angle = static_cast<long double>(p) * f(j);
      const auto i = static_cast<size_t>(p * pairs + j);
      const long double allowed = scale * (0x1p-24L + angle * 0x1p-50L) * 1.001L;
      EXPECT_NEAR(static_cast<double>(t.cos[i]), static_cast<double>(scale * std::cos(angle)),
                  static_cast<double>(allowed))
          << p << " " << j;
      EXPECT_NEAR(static_cast<double>(t.sin[i]), static_cast<double>(scale * std::sin(angle)),
                  static_cast<double>(allowed))
          << p << " " << j;
    }
  }
}

TEST(RotaryTable, Standard) {
  Tables t;
  expect_tables(t, [](int64_t j) { return power(10000, j); });
  t.args.base = 5e5;
  expect_tables(t, [](int64_t j) { return power(5e5L, j); });
}

TEST(RotaryTable, KeepsItsAngleAtAMillion) {
  Tables t(4, (1 << 20) + 1);
  ASSERT_TRUE(build(t.args).ok());
  const size_t last = size_t{1} << 20;
  EXPECT_FLOAT_EQ(t.cos[2 * last], std::cos(1048576.0));
  EXPECT_FLOAT_EQ(t.sin[2 * last + 1], std::sin(10485.76));
}

TEST(RotaryTable, Linear) {
  Tables t;
  t.args.rope_type = RopeType::linear;
  t.args.factor = 4;
  expect_tables(t, [](int64_t j) { return power(10000, j) / 4; });
}

// "NTK-aware": base s^(d / (d - 2)), so that the last frequency is divided by s and the first by nothing.
TEST(RotaryTable, Ntk) {
  Tables t;
  t.args.rope_type = RopeType::ntk;
  t.args.factor = 8;
  const long double base = 10000 * std::pow(8.0L, 16.0L / 14);
  expect_tables(t, [&](int64_t j) { return power(base, j); });
  EXPECT_NEAR(static_cast<double>(power(base, kPairs - 1)), static_cast<double>(power(10000, kPairs - 1) / 8),
              1e-12);
}

// Hugging Face, _compute_dynamic_ntk_parameters.
TEST(RotaryTable, Dynamic) {
  Tables t;
  t.args.rope_type = RopeType::dynamic;
  t.args.factor = 2;
  t.args.original_length = 64;
  for (const int64_t length : {0, 10, 64, 256}) {
    t.args.length = length;
    const long double seen = std::fmax(length == 0 ? kRows : length, 64);
    const long double base = 10000 * std::pow(2 * seen / 64 - 1, 16.0L / 14);
    expect_tables(t, [&](int64_t j) { return power(base, j); });
  }
}

// Hugging Face, _compute_llama3_parameters, in wavelengths.
TEST(RotaryTable, Llama3) {
  Tables t(64);
  t.args.rope_type = RopeType::llama3;
  t.args.factor = 8;
  t.args.base = 500000;
  int kinds[3] = {};
  expect_tables(t, [&](int64_t j) {
    const long double e = power(500000, j, 64), wavelength = 2 * kPi / e;
    const long double low_wavelength = 8192 / 1.0L, high_wavelength = 8192 / 4.0L;
    if (wavelength < high_wavelength) return ++kinds[0], e;
    if (wavelength > low_wavelength) return ++kinds[1], e / 8;
    ++kinds[2];
    const long double smooth = (8192 / wavelength - 1) / (4 - 1);
    return (1 - smooth) * e / 8 + smooth * e;
  });
  for (const int kind : kinds)
    EXPECT_GT(kind, 0);
}

// The YaRN paper's own code: find_correction_dim, linear_ramp_mask, get_mscale.
TEST(RotaryTable, Yarn) {
  for (const bool truncate : {true, false}) {
    Tables t(64);
    t.args.rope_type = RopeType::yarn;
    t.args.factor = 16;
    t.args.original_length = 4096;
    t.args.truncate = truncate;
    const auto correction = [](long double rotations) {
      return 64 * std::log(4096 / (rotations * 2 * kPi)) / (2 * std::log(10000.0L));
    };
    long double low = correction(32), high = correction(1);
    if (truncate) low = std::floor(low), high = std::ceil(high);
    const auto f = [&](int64_t j) {
      const long double ramp =
          std::fmin(std::fmax((static_cast<long double>(j) - low) / (high - low), 0.0L), 1.0L);
      const long double extrapolation = power(10000, j, 64), interpolation = extrapolation / 16;
      return interpolation * ramp + extrapolation * (1 - ramp);
    };
    expect_tables(t, f, 0.1L * std::log(16.0L) + 1);
    t.args.mscale = 0.707;
    t.args.mscale_all_dim = 1;
    expect_tables(t, f, (0.1L * 0.707L * std::log(16.0L) + 1) / (0.1L * std::log(16.0L) + 1));
    t.args.attention_factor = 1.25;
    expect_tables(t, f, 1.25L);
  }
}

TEST(RotaryTable, YarnOfOneRampPointStaysFinite) {
  Tables t(2);
  t.args.rope_type = RopeType::yarn;
  t.args.factor = 2;
  t.args.original_length = 1;
  ASSERT_TRUE(build(t.args).ok());
  for (const float c : t.cos)
    EXPECT_TRUE(std::isfinite(c));
}

// Hugging Face, _compute_longrope_parameters.
TEST(RotaryTable, LongRope) {
  std::vector<double> small(kPairs), large(kPairs);
  for (size_t j = 0; j < small.size(); ++j) {
    small[j] = 1 + 0.125 * static_cast<double>(j);
    large[j] = 2 + static_cast<double>(j);
  }
  Tables t;
  t.args.rope_type = RopeType::longrope;
  t.args.factor = 32;
  t.args.original_length = 100;
  t.args.short_factors = small.data();
  t.args.long_factors = large.data();
  const long double scale = std::sqrt(1 + std::log(32.0L) / std::log(100.0L));
  const auto with = [](const std::vector<double>& factors) {
    return [&](int64_t j) {
      return 1 / (static_cast<long double>(factors[static_cast<size_t>(j)]) / power(10000, j));
    };
  };
  expect_tables(t, with(small), scale);
  t.args.length = 101;
  expect_tables(t, with(large), scale);
  t.args.attention_factor = 1;
  expect_tables(t, with(large));
}

TEST(RotaryTable, Proportional) {
  Tables t;
  t.args.rope_type = RopeType::proportional;
  t.args.factor = 2;
  t.args.proportion = 0.3;  // floor(2.4) pairs turn
  expect_tables(t, [](int64_t j) { return j < 2 ? power(10000, j) / 2 : 0.0L; });
}

TEST(RotaryTable, Linspace) {
  Tables t;
  t.args.rope_type = RopeType::linspace;
  expect_tables(t, [](int64_t j) { return std::pow(10000.0L, -static_cast<long double>(j) / (kPairs - 1)); });
}

TEST(RotaryTable, XposScalesQUpAndKDown) {
  Tables t;
  t.use_xpos();
  ASSERT_TRUE(build(t.args).ok());
  for (int64_t p = 0; p < kRows; ++p) {
    for (int64_t j = 0; j < kPairs; ++j) {
      const long double z = (2 * static_cast<long double>(j) + 0.4L * kDim) / (1.4L * kDim);
      const long double g = std::pow(z, static_cast<long double>(p - kRows / 2) / 512);
      const long double angle = static_cast<long double>(p) * power(10000, j);
      const auto i = static_cast<size_t>(p * kPairs + j);
      EXPECT_NEAR(static_cast<double>(t.cos[i]), static_cast<double>(g * std::cos(angle)), 1.3e-7);
      EXPECT_NEAR(static_cast<double>(t.sin_k[i]), static_cast<double>(std::sin(angle) / g), 1.3e-7);
    }
  }
}

// Defect 11 of the peer: there the centre moves with the table's length, and cached keys no longer fit.
TEST(RotaryTable, XposWithItsCentreGivenDoesNotDependOnTheLength) {
  Tables small(kDim, 20), large(kDim, 50);
  for (Tables* t : {&small, &large}) {
    t->use_xpos();
    t->args.xpos_center = 10;
    ASSERT_TRUE(build(t->args).ok());
  }
  for (size_t i = 0; i < small.cos.size(); ++i) {
    EXPECT_EQ(small.cos[i], large.cos[i]);
    EXPECT_EQ(small.sin_k[i], large.sin_k[i]);
  }
}

TEST(RotaryTable, CompatibleModeRoundsFrequencyAndAngle) {
  Tables t(4, 1048574);
  t.args.mode = RopeMode::fp32_compat;
  ASSERT_TRUE(build(t.args).ok());
  const float f = 0.01f;
  const auto p = static_cast<float>(1048573);
  const float angle = p * f;
  EXPECT_FLOAT_EQ(t.cos[t.cos.size() - 1], static_cast<float>(std::cos(static_cast<double>(angle))));
  EXPECT_GT(std::abs(std::cos(static_cast<double>(angle)) - std::cos(1048573 * 0.01)),
            1e-6);  // what exact mode avoids
}

TEST(RotaryTable, NarrowPositionsAreRoundedBeforeAndAfterTheProduct) {
  Tables t(4, 1000);
  t.args.mode = RopeMode::fp32_compat;
  t.args.pos_dtype = DType::bf16;
  ASSERT_TRUE(build(t.args).ok());
  // 999 is 1000 in bf16, 0.01 is 0.010009765625, and their product 10.009765625 is 10.
  EXPECT_FLOAT_EQ(t.cos[2 * 999 + 1], static_cast<float>(std::cos(10.0)));
  EXPECT_FLOAT_EQ(t.cos[2 * 999], static_cast<float>(std::cos(1000.0)));
}

TEST(RotaryTable, StoresSixteenBitTables) {
  for (const DType type : {DType::f16, DType::bf16}) {
    std::vector<uint16_t> cos(kRows), sin(kRows);
    RotaryTable a;
    a.cos = dense(cos.data(), type, {kRows, 1});
    a.sin = dense(sin.data(), type, {kRows, 1});
    a.dim = 2;
    ASSERT_TRUE(build(a).ok());
    EXPECT_EQ(cos[0], type == DType::f16 ? 0x3c00 : 0x3f80);
    EXPECT_EQ(sin[0], 0);
    EXPECT_EQ(cos[1], type == DType::f16 ? 0x3853 : 0x3f0a);  // cos 1 = 0.5403023
    EXPECT_EQ(sin[4], type == DType::f16 ? 0xba0e : 0xbf42);  // sin 4 = -0.7568025
  }
}

TEST(RotaryTable, RefusesWhatItCannotBuild) {
  const auto refused = [](StatusCode code, const char* naming,
                          const std::function<void(RotaryTable&)>& change) {
    Tables t;
    change(t.args);
    const Status s = build(t.args);
    EXPECT_EQ(s.code, code) << naming << ": " << s.text;
    EXPECT_TRUE(std::strstr(s.text, naming)) << s.text;
  };
  const auto invalid = StatusCode::invalid_argument;
  // Defect 14 of the peer: an odd dim reads past the head there.
  refused(invalid, "dim", [](RotaryTable& a) { a.dim = 15; });
  refused(invalid, "dim", [](RotaryTable& a) { a.dim = 14; });
  refused(invalid, "base", [](RotaryTable& a) { a.base = 0; });
  refused(invalid, "base", [](RotaryTable& a) { a.base = std::nan(""); });
  refused(invalid, "factor", [](RotaryTable& a) { a.factor = 0.5; });
  refused(invalid, "scale_base", [](RotaryTable& a) { a.scale_base = 0; });
  refused(invalid, "high_frequency", [](RotaryTable& a) { a.high_frequency = 1; });
  refused(invalid, "proportion", [](RotaryTable& a) { a.proportion = 1.5; });
  refused(invalid, "length", [](RotaryTable& a) { a.length = -1; });
  refused(invalid, "rope_type", [](RotaryTable& a) { a.rope_type = static_cast<RopeType>(9); });
  refused(invalid, "mode", [](RotaryTable& a) { a.mode = static_cast<RopeMode>(2); });
  refused(StatusCode::unsupported_dtype, "pos_dtype", [](RotaryTable& a) { a.pos_dtype = DType::i32; });
  refused(StatusCode::unsupported_combination, "pos_dtype",
          [](RotaryTable& a) { a.pos_dtype = DType::bf16; });
  refused(StatusCode::unsupported_combination, "cos_k", [](RotaryTable& a) { a.xpos = true; });
  refused(StatusCode::null_pointer, "short_factors",
          [](RotaryTable& a) { a.rope_type = RopeType::longrope; });
  refused(StatusCode::null_pointer, "sin", [](RotaryTable& a) { a.sin = {}; });
}

}  // namespace
}  // namespace fla
