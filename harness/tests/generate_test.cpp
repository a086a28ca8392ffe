#include "harness/generate.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <set>

namespace fla::harness {
namespace {

std::vector<double> reals(const std::string& text, const std::string& field) {
  const Problem p = make_problem(parse_case(text));
  return p.values[static_cast<size_t>(p.index_of(field))].real;
}
std::vector<int64_t> integers(const std::string& text, const std::string& field) {
  const Problem p = make_problem(parse_case(text));
  return p.values[static_cast<size_t>(p.index_of(field))].integer;
}

struct Moments {
  double mean = 0, square = 0, fourth = 0;
};
Moments moments(const std::vector<double>& v) {
  Moments m;
  for (const double x : v) m.mean += x, m.square += x * x, m.fourth += x * x * x * x;
  const auto n = static_cast<double>(v.size());
  return {m.mean / n, m.square / n, m.fourth / n};
}
double mean_square(const std::vector<double>& v, size_t row, size_t columns) {
  double sum = 0;
  for (size_t i = 0; i < columns; ++i) sum += v[row * columns + i] * v[row * columns + i];
  return sum / static_cast<double>(columns);
}

std::vector<double> filled(const std::string& fill, const std::string& field = "x",
                           const std::string& dtype = "f32") {
  return reals("rms_norm.fwd:M=64,N=256,x=" + dtype + ",bias=f32,fill=" + fill, field);
}

TEST(Fill, NormalIsNormal) {
  const Moments m = moments(reals("swiglu.fwd:M=512,F=1024", "x"));
  EXPECT_NEAR(m.mean, 0, 0.006);
  EXPECT_NEAR(m.square, 1, 0.01);
  EXPECT_NEAR(m.fourth, 3, 0.08);
}

TEST(Fill, NeighboursAndFieldsAreIndependent) {
  const std::vector<double> x = reals("swiglu.fwd:M=512,F=512", "x"),
                            y = reals("swiglu.fwd:M=512,F=512", "y");
  double neighbours = 0, rows = 0, fields = 0;
  for (size_t i = 0; i + 512 < x.size(); ++i) {
    neighbours += x[i] * x[i + 1];
    rows += x[i] * x[i + 512];
    fields += x[i] * y[i];
  }
  for (const double sum : {neighbours, rows, fields}) EXPECT_LT(std::fabs(sum) / std::sqrt(x.size()), 4);
}

TEST(Fill, ExactSumsAreExactInSinglePrecision) {
  const std::vector<double> x = filled("exact", "x", "bf16"), w = filled("exact", "weight");
  float forwards = 0, backwards = 0;
  for (size_t i = 0; i < x.size(); ++i) forwards += static_cast<float>(x[i] * w[i % 256]);
  for (size_t i = x.size(); i-- > 0;) backwards += static_cast<float>(x[i] * w[i % 256]);
  EXPECT_EQ(forwards, backwards);
  EXPECT_EQ(std::set<double>(x.begin(), x.end()).size(), 4u);
}

TEST(Fill, ScaledRowsDiffer) {
  const std::vector<double> x = filled("scaled");
  double least = 1e9, most = 0;
  for (size_t row = 0; row < 64; ++row) {
    least = std::min(least, mean_square(x, row, 256));
    most = std::max(most, mean_square(x, row, 256));
  }
  EXPECT_LT(least, 1e-4);
  EXPECT_GT(most, 1e4);
}

TEST(Fill, TinyAndOffsetHaveTheirMoments) {
  EXPECT_NEAR(moments(filled("tiny")).square, 1e-6, 1e-7);
  const Moments m = moments(filled("offset"));
  EXPECT_NEAR(m.mean, 1000, 0.1);
  EXPECT_NEAR(m.square - m.mean * m.mean, 1, 0.2);
}

TEST(Fill, PositiveIsOneSignEverywhere) {
  for (const char* field : {"x", "weight", "bias"})
    for (const double v : filled("positive", field)) EXPECT_GE(v, 1);
  for (const double v : reals("rms_norm.bwd:M=4,N=64,fill=positive", "dy")) EXPECT_GE(v, 1);
}

TEST(Fill, ConstantRowsAndZeroRows) {
  const std::vector<double> x = filled("constant");
  for (size_t i = 0; i < x.size(); ++i) EXPECT_EQ(x[i], x[i / 256 * 256]);
  EXPECT_EQ(x[2 * 256], 0);
  EXPECT_NE(x[0], x[256]);
  for (const double v : filled("zeros")) EXPECT_EQ(v, 0);
}

TEST(Fill, WeightsAndUpstreamGradientsStayNormal) {
  for (const char* fill : {"zeros", "constant", "tiny", "extremes", "masked", "specials"}) {
    EXPECT_NEAR(moments(filled(fill, "weight")).square, 1, 0.4) << fill;
    const std::string text = std::string("rms_norm.bwd:M=64,N=256,fill=") + fill;
    EXPECT_NEAR(moments(reals(text, "dy")).square, 1, 0.05) << fill;
  }
}

TEST(Fill, TiesHaveEqualMaxima) {
  const std::vector<double> x = filled("ties");
  EXPECT_EQ(std::set<double>(x.begin(), x.end()).size(), 3u);
  for (size_t row = 0; row < 64; ++row)
    EXPECT_GT(std::count(x.begin() + static_cast<long>(row) * 256,
                         x.begin() + static_cast<long>(row + 1) * 256, 2.0),
              1);
}

TEST(Fill, MaskedRowsCycleThroughFourPatterns) {
  const std::vector<double> x = reals("cross_entropy.fwd:T=8,V=90,fill=masked", "logits");
  const auto hidden = [&](size_t row) {
    return std::count(x.begin() + static_cast<long>(row) * 90, x.begin() + static_cast<long>(row + 1) * 90,
                      -std::numeric_limits<double>::infinity());
  };
  EXPECT_EQ(hidden(0), 30);
  EXPECT_EQ(hidden(1), 30);
  EXPECT_EQ(hidden(2), 89);
  EXPECT_EQ(hidden(3), 90);
  EXPECT_TRUE(std::isinf(x[89]));
  EXPECT_TRUE(std::isinf(x[90]));
}

TEST(Fill, ConfidentLogitsFavourTheirLabel) {
  const std::string text = "cross_entropy.fwd:T=200,V=50,fill=confident";
  const std::vector<double> logits = reals(text, "logits");
  const std::vector<int64_t> labels = integers(text, "labels");
  double most = 0, mean = 0;
  for (size_t row = 0; row < 200; ++row) {
    const double lead = logits[row * 50 + static_cast<size_t>(labels[row])];
    most = std::max(most, lead);
    mean += lead / 200;
  }
  EXPECT_GT(most, 35);
  EXPECT_LT(most, 43);
  EXPECT_NEAR(mean, 20, 3);
}

TEST(Fill, ExtremesReachTheEndsOfTheDtype) {
  for (const auto& [name, type] :
       {std::pair{"f16", DType::f16}, {"bf16", DType::bf16}, {"f32", DType::f32}}) {
    const std::vector<double> x = filled("extremes", "x", name);
    const double largest = *std::max_element(x.begin(), x.end());
    EXPECT_TRUE(std::isinf(round_to(type, largest + 0.6 * spacing(type, largest)))) << name;
    double least = largest;
    bool minus_zero = false;
    for (const double v : x) {
      EXPECT_TRUE(std::isfinite(v));
      if (v > 0) least = std::min(least, v);
      minus_zero |= v == 0 && std::signbit(v);
    }
    EXPECT_LT(least, type == DType::f16 ? 0x1p-14 : 0x1p-126) << name;
    EXPECT_TRUE(minus_zero) << name;
  }
}

TEST(Fill, SpecialsStandInChosenRowsOnly) {
  const std::vector<double> x = filled("specials");
  for (size_t row = 0; row < 64; ++row) {
    int nan = 0, infinite = 0;
    for (size_t i = row * 256; i < (row + 1) * 256; ++i)
      nan += std::isnan(x[i]), infinite += std::isinf(x[i]);
    EXPECT_EQ(nan, row % 4 == 1) << row;
    EXPECT_EQ(infinite, row % 4 == 2) << row;
  }
}

TEST(Content, LabelsLieInRangeOrAreIgnored) {
  const std::vector<int64_t> labels =
      integers("cross_entropy.fwd:T=2000,V=10,ignore=0.25,ignore_index=-7", "labels");
  std::vector<int64_t> seen(10);
  int64_t ignored = 0;
  for (const int64_t label : labels) {
    ignored += label == -7;
    if (label == -7) continue;
    ASSERT_TRUE(label >= 0 && label < 10);
    ++seen[static_cast<size_t>(label)];
  }
  EXPECT_NEAR(static_cast<double>(ignored), 500, 80);
  for (const int64_t n : seen) EXPECT_NEAR(static_cast<double>(n), 150, 50);
}

TEST(Content, AFewLabelsAreNeverNearlyAllIgnored) {
  for (int seed = 0; seed < 100; ++seed) {
    const std::vector<int64_t> labels =
        integers("cross_entropy.fwd:T=9,V=10,ignore=0.5,seed=" + std::to_string(seed), "labels");
    const auto ignored = std::count(labels.begin(), labels.end(), -100);
    EXPECT_TRUE(ignored >= 3 && ignored <= 6) << seed << ": " << ignored;
  }
}

TEST(Content, LabelsOfAShardSpanAllClasses) {
  const std::vector<int64_t> labels =
      integers("cross_entropy.fwd:T=500,V=10,class_start=10,total_classes=40", "labels");
  EXPECT_LT(*std::min_element(labels.begin(), labels.end()), 10);
  EXPECT_GT(*std::max_element(labels.begin(), labels.end()), 30);
  EXPECT_LT(*std::max_element(labels.begin(), labels.end()), 40);
}

TEST(Content, InvalidLabelsReachTheEndsOfTheirType) {
  const std::vector<int64_t> wide = integers("cross_entropy.fwd:T=300,V=10,labels.invalid=1", "labels");
  for (const int64_t label : {int64_t{-1}, int64_t{10}, std::numeric_limits<int64_t>::max()})
    EXPECT_TRUE(std::count(wide.begin(), wide.end(), label)) << label;
  const std::vector<int64_t> narrow =
      integers("cross_entropy.fwd:T=300,V=10,labels=i32,labels.invalid=1", "labels");
  EXPECT_EQ(*std::max_element(narrow.begin(), narrow.end()), std::numeric_limits<int32_t>::max());
}

TEST(Content, OffsetsAreAPartition) {
  for (int seed = 0; seed < 50; ++seed) {
    const auto offsets =
        integers("causal_conv1d.fwd:T=100,D=1,cu_seqlens=i32,N=7,seed=" + std::to_string(seed), "cu_seqlens");
    ASSERT_EQ(offsets.size(), 8u);
    EXPECT_EQ(offsets.front(), 0);
    EXPECT_EQ(offsets.back(), 100);
    EXPECT_TRUE(std::is_sorted(offsets.begin(), offsets.end()));
    EXPECT_EQ(offsets[1], offsets[2]);  // an empty sequence
  }
}

TEST(Content, LensSayTheOffsets) {
  EXPECT_EQ(integers("causal_conv1d.fwd:T=8,D=1,cu_seqlens=i32,lens=0+5+3", "cu_seqlens"),
            (std::vector<int64_t>{0, 0, 5, 8}));
  EXPECT_EQ(integers("causal_conv1d.fwd:T=9,D=1,cu_seqlens=i64,N=2,lens=equal", "cu_seqlens"),
            (std::vector<int64_t>{0, 4, 9}));
}

TEST(Content, HostileOffsetsBreakEveryRule) {
  bool decreasing = false, negative = false, beyond = false, late = false;
  for (int seed = 0; seed < 20; ++seed) {
    const auto offsets = integers(
        "causal_conv1d.fwd:T=40,D=1,cu_seqlens=i32,N=5,offsets.invalid=1,seed=" + std::to_string(seed),
        "cu_seqlens");
    decreasing |= !std::is_sorted(offsets.begin(), offsets.end());
    late |= offsets[0] != 0;
    for (const int64_t o : offsets) negative |= o<0, beyond |= o> 40;
  }
  EXPECT_TRUE(decreasing && negative && beyond && late);
}

TEST(Content, MasksAreZeroOrOneInEveryDtype) {
  const std::vector<double> soft = reals("causal_conv1d.fwd:B=4,T=100,D=1,mask=bf16", "mask");
  const std::vector<int64_t> hard = integers("causal_conv1d.fwd:B=4,T=100,D=1,mask=u8", "mask");
  EXPECT_EQ(std::set<double>(soft.begin(), soft.end()), (std::set<double>{0, 1}));
  EXPECT_EQ(std::set<int64_t>(hard.begin(), hard.end()), (std::set<int64_t>{0, 1}));
}

TEST(Content, CountersStartAnywhere) {
  EXPECT_EQ(integers("cross_entropy.fwd:T=3,V=4,invalid_labels=i64", "invalid_labels"),
            (std::vector<int64_t>{5, std::numeric_limits<int64_t>::max()}));
}

TEST(Content, ANormalizerIsPositive) {
  for (int seed = 0; seed < 20; ++seed) {
    const double v =
        reals("cross_entropy.fwd:T=3,V=4,normalizer=f32,seed=" + std::to_string(seed), "normalizer")[0];
    EXPECT_TRUE(v >= 0.5 && v <= 1.5);
  }
}

TEST(Generator, UpstreamGradientsAreKnownByName) {
  const Problem back = make_problem(parse_case("rms_norm.bwd:M=2,N=8,residual=f32"), false);
  EXPECT_TRUE(is_upstream(back, *back.signature.field("dy")));
  EXPECT_TRUE(is_upstream(back, *back.signature.field("dresidual_out")));
  EXPECT_FALSE(is_upstream(back, *back.signature.field("residual_out")));
  EXPECT_FALSE(is_upstream(back, *back.signature.field("dx")));  // an output
  const Problem fused = make_problem(parse_case("cross_entropy.fwd_bwd:T=2,V=8,dloss=f32"), false);
  EXPECT_TRUE(is_upstream(fused, *fused.signature.field("dloss")));
}

}  // namespace
}  // namespace fla::harness
