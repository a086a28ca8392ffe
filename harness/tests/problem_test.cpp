#include "harness/problem.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <set>

#include "harness/evaluate.h"

namespace fla::harness {
namespace {

Problem made(const std::string& text, bool values = true) { return make_problem(parse_case(text), values); }

const Tensor& tensor(const Problem& p, const std::string& name) { return p.args.tensor(*p.signature.field(name)); }
const HostTensor& host(const Problem& p, const std::string& name) { return p.values[static_cast<size_t>(p.index_of(name))]; }
const Layout& layout(const Problem& p, const std::string& name) { return p.layouts[static_cast<size_t>(p.index_of(name))]; }

std::string present(const Problem& p) {
  std::string text;
  for (const Field& f : p.signature.fields)
    if (p.args.tensor(f)) text += f.name + ":" + name_of(p.args.tensor(f).dtype) + " ";
  return text;
}

std::vector<int64_t> strides(const Problem& p, const std::string& name) { return layout(p, name).stride; }
using Extents = std::vector<int64_t>;

// ------------------------------------------------------------------------------------------ presence and dtypes

TEST(Problem, DtypesFollowTheirRules) {
  EXPECT_EQ(present(made("rms_norm.fwd:M=2,N=8")), "x:f32 weight:f32 y:f32 rstd:f32 ");
  EXPECT_EQ(present(made("rms_norm.fwd:M=2,N=8,x=bf16,residual=f32")),
            "x:bf16 residual:f32 weight:bf16 y:bf16 residual_out:f32 rstd:f32 ");
  EXPECT_EQ(present(made("rms_norm.fwd:M=2,N=8,x=f16,weight=none,rstd=none")), "x:f16 y:f16 ");
  EXPECT_EQ(present(made("cross_entropy.fwd:T=2,V=8,logits=bf16")), "logits:bf16 labels:i64 loss:f32 lse:f32 ");
}

TEST(Problem, ABackwardFollowsItsForward) {
  EXPECT_EQ(present(made("rms_norm.bwd:M=2,N=8,x=bf16,weight=f32")),
            "x:bf16 weight:f32 rstd:f32 dy:bf16 dx:bf16 dweight:f32 ");
  EXPECT_EQ(present(made("rms_norm.bwd:M=2,N=8,x=bf16,residual=f32,bias=bf16")),
            "residual_out:f32 weight:bf16 bias:bf16 rstd:f32 dy:bf16 dresidual_out:f32 dx:bf16 dresidual:f32 "
            "dweight:bf16 dbias:bf16 ");
  EXPECT_EQ(present(made("rms_norm.bwd:M=2,N=8,residual=f32,dresidual=none,dresidual_out=none,weight=none")),
            "residual_out:f32 rstd:f32 dy:f32 dx:f32 ");
  EXPECT_EQ(present(made("rms_norm.bwd:M=2,N=8,y=none")), present(made("rms_norm.bwd:M=2,N=8")));
  EXPECT_EQ(present(made("causal_conv1d.bwd:T=3,D=2,initial_state=bf16,final_state=f32")),
            "x:f32 weight:f32 initial_state:bf16 dy:f32 dfinal_state:f32 dx:f32 dweight:f32 dinitial_state:bf16 ");
}

TEST(Problem, EveryDefaultProblemIsValid) {
  for (const char* text :
       {"rms_norm.fwd:M=3,N=8", "rms_norm.bwd:M=3,N=8,residual=bf16", "swiglu.fwd:M=3,F=8", "swiglu.bwd:M=3,F=8",
        "cross_entropy.fwd:T=3,V=8", "cross_entropy.bwd:T=3,V=8", "cross_entropy.fwd_bwd:T=3,V=8",
        "causal_conv1d.fwd:B=2,T=3,D=8", "causal_conv1d.bwd:T=9,D=8,cu_seqlens=i32", "causal_conv1d.states:T=3,D=8",
        "causal_conv1d.update:N=3,D=8", "rms_norm.fwd:M=3,N=8,omit=1", "rms_norm.fwd:M=3,G=2,N=8,x.pad=3,y.gap=5",
        "swiglu.fwd:M=3,F=8,z.alias=1,x.pad=2", "causal_conv1d.fwd:T=9,D=8,x.inner=3,y.inner=2"}) {
    Problem p = made(text);
    std::vector<std::vector<char>> memory;
    for (size_t f = 0; f < p.signature.fields.size(); ++f) {
      Tensor& t = p.args.tensor(p.signature.fields[f]);
      if (!t) continue;
      memory.emplace_back(static_cast<size_t>(p.layouts[f].span * size_of(t.dtype) + 16));
      t.data = memory.back().data();
    }
    for (size_t f = 0; f < p.signature.fields.size(); ++f)
      if (const std::string& of = p.layouts[f].alias_of; !of.empty())
        p.args.tensor(p.signature.fields[f]).data = p.args.tensor(*p.signature.field(of)).data;
    const Status s = p.origin.direction->validate(p.args.get());
    EXPECT_TRUE(s.ok()) << text << ": " << s.text;
  }
}

// ---------------------------------------------------------------------------------------------- shapes, layouts

TEST(Problem, ExtentsComeFromTheCaseOrTheirFallback) {
  const Problem p = made("causal_conv1d.fwd:T=5,D=6,W=3,initial_state=f32");
  EXPECT_EQ(p.dims, (std::map<std::string, int64_t>{{"B", 1}, {"D", 6}, {"S", 3}, {"T", 5}, {"W", 3}}));
  EXPECT_EQ(host(p, "initial_state").size, (Extents{1, 6, 3}));
  EXPECT_EQ(made("causal_conv1d.fwd:T=5,D=6,cu_seqlens=i32,lens=2+3").dims.at("N"), 2);
  EXPECT_EQ(host(made("rms_norm.fwd:M=2,G=3,N=4,weight_per_group=1"), "weight").size, (Extents{3, 4}));
}

TEST(Problem, OmitLeavesOutDimensionsOfOne) {
  const Problem p = made("rms_norm.fwd:M=2,N=4,omit=1");
  EXPECT_EQ(tensor(p, "x").rank, 2);
  EXPECT_EQ(tensor(p, "rstd").rank, 1);
  EXPECT_EQ(tensor(made("rms_norm.fwd:M=2,N=4"), "x").rank, 3);
}

TEST(Problem, LayoutKeysLengthenShiftAndSpread) {
  const Problem p = made("rms_norm.fwd:M=2,G=3,N=4,x.pad=1,x.gap=7,x.shift=5,all.pad=2,all.shift=1");
  EXPECT_EQ(strides(p, "x"), (Extents{22, 5, 1}));
  EXPECT_EQ(strides(p, "y"), (Extents{18, 6, 1}));
  EXPECT_EQ(layout(p, "x").shift, 5);
  EXPECT_EQ(layout(p, "weight").shift, 1);
  EXPECT_EQ(layout(p, "x").span, 22 + 2 * 5 + 4);
  EXPECT_EQ(strides(made("causal_conv1d.fwd:T=3,D=4,x.inner=3"), "x"), (Extents{36, 12, 3}));
}

TEST(Problem, BytesCountWhatIsAllocated) {
  EXPECT_EQ(made("swiglu.fwd:M=3,F=8,x=bf16", false).bytes, 3 * 3 * 8 * 2);
  EXPECT_EQ(made("swiglu.fwd:M=3,F=8,x=bf16,z.alias=1", false).bytes, 2 * 3 * 8 * 2);
  EXPECT_EQ(made("swiglu.fwd:M=0,F=8", false).bytes, 0);
}

TEST(Problem, AnAliasIsExactlyTheTensor) {
  const Problem p = made("swiglu.fwd:M=3,F=8,z.alias=1,x.pad=3,x.shift=2");
  EXPECT_EQ(layout(p, "z").alias_of, "x");
  EXPECT_EQ(strides(p, "z"), strides(p, "x"));
  EXPECT_EQ(layout(p, "z").shift, 2);
  EXPECT_THROW(made("swiglu.bwd:M=3,F=8,dx=bf16,dx.alias=1"), UsageError);
}

TEST(Problem, ABroadcastInputHasOneValue) {
  const Problem p = made("swiglu.bwd:M=3,F=8,dz.broadcast=1");
  EXPECT_EQ(strides(p, "dz"), (Extents{0, 0}));
  EXPECT_EQ(layout(p, "dz").span, 1);
  const std::vector<double>& v = host(p, "dz").real;
  ASSERT_EQ(v.size(), 24u);
  EXPECT_EQ(std::count(v.begin(), v.end(), v[0]), 24);
}

// -------------------------------------------------------------------------------------------------------- values

TEST(Problem, ValuesAreStoredValuesAndRepeatable) {
  const Problem p = made("swiglu.fwd:M=30,F=40,x=bf16,y=f16"), again = made("swiglu.fwd:M=30,F=40,x=bf16,y=f16");
  EXPECT_EQ(host(p, "x").real, host(again, "x").real);
  for (const double v : host(p, "x").real) EXPECT_EQ(v, round_to(DType::bf16, v));
  for (const double v : host(p, "y").real) EXPECT_EQ(v, round_to(DType::f16, v));
  EXPECT_NE(host(p, "x").real, host(p, "y").real);
  EXPECT_NE(host(p, "x").real, host(made("swiglu.fwd:M=30,F=40,x=bf16,y=f16,seed=1"), "x").real);
  EXPECT_TRUE(host(p, "z").real.empty());
}

TEST(Problem, ABackwardGetsWhatItsForwardSaved) {
  const std::string keys = "M=5,N=16,x=bf16,residual=f32,eps=0.5,seed=9";
  const Problem back = made("rms_norm.bwd:" + keys), forward = made("rms_norm.fwd:" + keys);
  Evaluation<double> e = inputs_as<double>(forward);
  evaluate(forward, e);
  const auto f32 = [](double v) { return static_cast<double>(static_cast<float>(v)); };
  for (const char* name : {"rstd", "residual_out"}) {
    const std::vector<double>& there = e.values[static_cast<size_t>(forward.index_of(name))];
    const std::vector<double>& here = host(back, name).real;
    ASSERT_EQ(here.size(), there.size()) << name;
    for (size_t i = 0; i < here.size(); ++i) EXPECT_EQ(here[i], f32(there[i])) << name;
  }
  EXPECT_EQ(host(back, "weight").real, host(forward, "weight").real);
  EXPECT_LT(host(back, "rstd").real[0], 1.3);  // eps reached the forward: without it, about 0.7 of N(0, 2) is 1/sqrt(2)
}

TEST(Problem, EmptyTensorsHaveNoValues) {
  const Problem p = made("rms_norm.bwd:M=0,N=8");
  EXPECT_EQ(host(p, "dy").real.size(), 0u);
  EXPECT_EQ(layout(p, "dy").span, 0);
  EXPECT_EQ(host(made("causal_conv1d.fwd:T=0,D=2,cu_seqlens=i32,N=0,lens=equal"), "cu_seqlens").integer, (Extents{0}));
}

// ------------------------------------------------------------------------------------------------------ sampling

constexpr const char* kLarge = "rms_norm.bwd:M=40000,N=64,x=bf16";

TEST(Sample, SmallProblemsAreWhole) {
  EXPECT_TRUE(made("rms_norm.fwd:M=4096,N=512,x=bf16,weight=none").sample.empty());
  EXPECT_TRUE(made("rms_norm.fwd:M=4,N=1048576,x=bf16,weight=none").sample.empty());  // too few rows to choose from
}

TEST(Sample, TakesTheEndsEdgesAndOthers) {
  const Problem p = made(kLarge);
  ASSERT_FALSE(p.sample.empty());
  EXPECT_TRUE(std::is_sorted(p.sample.begin(), p.sample.end()));
  const std::set<int64_t> sample(p.sample.begin(), p.sample.end());
  EXPECT_EQ(sample.size(), 64u);
  for (const int64_t row : {0, 1, 127, 128, 263, 264, 39999}) EXPECT_TRUE(sample.count(row)) << row;
  EXPECT_GT(std::count_if(sample.begin(), sample.end(), [](int64_t row) { return row > 264 && row < 39999; }), 40);
}

TEST(Sample, TakesTheRowsAroundThirtyOneAndThirtyTwoBits) {
  const Case c = parse_case("rms_norm.fwd:M=5000000,N=1024,x=bf16,weight=none,seed=1");
  const Problem p = make_problem(c);
  EXPECT_TRUE(std::count(p.sample.begin(), p.sample.end(), (int64_t{1} << 31) / 1024));
  EXPECT_TRUE(std::count(p.sample.begin(), p.sample.end(), (int64_t{1} << 32) / 1024));
  EXPECT_EQ(host(p, "x").real.size(), p.sample.size() * 1024);
}

TEST(Sample, ABroadcastGradientIsJudgedWhole) {
  EXPECT_TRUE(made("swiglu.bwd:M=40000,F=64,x=bf16,dz.broadcast=1").sample.empty());
  EXPECT_FALSE(made("swiglu.bwd:M=40000,F=64,x=bf16,y.broadcast=1").sample.empty());
}

TEST(Sample, ItsPartIsAProblemOfItsOwn) {
  const Problem p = made(kLarge), part = sampled(p);
  EXPECT_TRUE(part.sample.empty());
  EXPECT_EQ(part.dims.at("M"), 64);
  EXPECT_EQ(tensor(part, "x").size[0], 64);
  EXPECT_EQ(tensor(part, "weight").size[0], 64);
  EXPECT_EQ(count(tensor(part, "x")), static_cast<int64_t>(host(part, "x").real.size()));
  Evaluation<double> e = inputs_as<double>(part);
  evaluate(part, e);
  EXPECT_EQ(e.values[static_cast<size_t>(part.index_of("dx"))].size(), 64u * 64u);
}

// Logical element i of a field, as it will lie in memory.
std::vector<double> stored(const Problem& p, const std::string& name, int64_t first, int64_t count) {
  const Tensor& t = tensor(p, name);
  std::vector<char> bytes(static_cast<size_t>(count * size_of(t.dtype)));
  fill_storage(p, p.index_of(name), first, count, bytes.data());
  HostTensor values;
  values.real.resize(static_cast<size_t>(count));
  values.integer.resize(static_cast<size_t>(count));
  decode(t.dtype, bytes.data(), count, values, 0);
  return is_float(t.dtype) ? values.real : std::vector<double>(values.integer.begin(), values.integer.end());
}

TEST(Storage, OfAWholeProblemIsItsValues) {
  const Problem p = made("rms_norm.fwd:M=500,N=300,x=bf16");
  EXPECT_EQ(stored(p, "x", 0, 150000), host(p, "x").real);
  const std::vector<double> some = stored(p, "x", 777, 5);
  EXPECT_TRUE(std::equal(some.begin(), some.end(), host(p, "x").real.begin() + 777));
}

TEST(Storage, OfASampleIsNeutralOutsideIt) {
  for (const char* text : {kLarge, "causal_conv1d.bwd:B=2,T=300,D=5000,x=bf16", "cross_entropy.bwd:T=30000,V=100,reduction=none"}) {
    const Problem p = made(text);
    ASSERT_FALSE(p.sample.empty()) << text;
    const std::string& sample_dim = p.origin.direction->sample_dim;
    for (const Field& f : p.signature.fields) {
      const Tensor& t = p.args.tensor(f);
      if (!t || f.role != Role::input) continue;
      int axis = -1;
      int64_t inner = 1;
      for (int d = t.rank - 1; d >= 0 && axis < 0; --d)
        if (t.size[d] == p.dims.at(sample_dim)) axis = d;
        else inner *= t.size[d];
      const std::vector<double> all = stored(p, f.name, 0, count(t));
      const HostTensor& kept = host(p, f.name);
      size_t next = 0;
      bool varied = false;
      for (size_t i = 0; i < all.size(); ++i) {
        const int64_t index = axis < 0 ? 0 : static_cast<int64_t>(i) / inner % t.size[axis];
        if (axis < 0 || std::binary_search(p.sample.begin(), p.sample.end(), index)) {
          const double value = kept.real.empty() ? static_cast<double>(kept.integer[next]) : kept.real[next];
          ++next;
          ASSERT_EQ(all[i], value) << text << " " << f.name << " " << i;
        } else if (f.name[0] == 'd') {
          ASSERT_EQ(all[i], 0) << text << " " << f.name << " " << i;
        } else if (f.name == "rstd" || f.name == "lse") {
          ASSERT_EQ(all[i], 1) << text << " " << f.name << " " << i;
        } else if (f.name == "labels") {
          ASSERT_EQ(all[i], -100) << i;
        } else {
          ASSERT_LE(std::fabs(all[i]), 2) << text << " " << f.name;
          varied |= all[i] != all[0];
        }
      }
      EXPECT_EQ(next, std::max(kept.real.size(), kept.integer.size())) << text << " " << f.name;
      EXPECT_EQ(varied, axis >= 0 && (f.name == "x" || f.name == "logits" || f.name == "weight")) << text << " " << f.name;
    }
  }
}

TEST(Storage, ARangeDoesNotDependOnWhereItBegins) {
  const Problem p = made(kLarge);
  const std::vector<double> all = stored(p, "x", 0, 40000 * 64);
  for (const int64_t first : {1, 63, 64, 8191, 2000001}) {
    const std::vector<double> part = stored(p, "x", first, 1001);
    EXPECT_TRUE(std::equal(part.begin(), part.end(), all.begin() + first)) << first;
  }
}

// ------------------------------------------------------------------------------------------------------ rounding

TEST(Rounding, IsToNearestEven) {
  EXPECT_EQ(round_to(DType::bf16, 1 + 0x1p-8), 1);
  EXPECT_EQ(round_to(DType::bf16, 1 + 0x3p-8), 1 + 0x1p-6);
  EXPECT_EQ(round_to(DType::bf16, 1 + 0x1p-8 + 0x1p-40), 1 + 0x1p-7);
  EXPECT_EQ(round_to(DType::f16, 0x1p-25), 0);
  EXPECT_EQ(round_to(DType::f16, 0x1.8p-25), 0x1p-24);
  EXPECT_EQ(round_to(DType::f32, 1 + 0x1p-24), 1);
  EXPECT_TRUE(std::signbit(round_to(DType::bf16, -0.0)));
}

TEST(Rounding, OverflowsToInfinityAtTheRightPlace) {
  EXPECT_EQ(round_to(DType::f16, 65519.99), 65504);
  EXPECT_EQ(round_to(DType::f16, 65520), HUGE_VAL);
  EXPECT_EQ(round_to(DType::bf16, -0x1.fep127), -0x1.fep127);
  EXPECT_EQ(round_to(DType::bf16, -0x1.ffp127), -HUGE_VAL);
}

TEST(Rounding, SpacingGrowsWithTheBinade) {
  EXPECT_EQ(spacing(DType::bf16, 1), 0x1p-7);
  EXPECT_EQ(spacing(DType::bf16, 1.99), 0x1p-7);
  EXPECT_EQ(spacing(DType::f16, 0), 0x1p-24);
  EXPECT_EQ(spacing(DType::f32, 0x1p-130), 0x1p-149);
}

TEST(Rounding, EverySixteenBitPatternSurvives) {
  for (const DType type : {DType::f16, DType::bf16})
    for (int bits = 0; bits < 65536; ++bits) {
      const auto pattern = static_cast<uint16_t>(bits);
      HostTensor t;
      t.real.resize(1);
      decode(type, &pattern, 1, t, 0);
      if (std::isnan(t.real[0])) continue;
      uint16_t back = 0;
      encode_real(type, t.real[0], &back, 0);
      ASSERT_EQ(back, pattern) << name_of(type);
    }
}

}  // namespace
}  // namespace fla::harness
