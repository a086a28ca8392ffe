#include "harness/problem.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <set>

#include "harness/evaluate.h"

namespace fla::harness {
namespace {

Problem made(const std::string& text, bool values = true) { return make_problem(parse_case(text), values); }

const Tensor& tensor(const Problem& p, const std::string& name) {
  return p.args.tensor(*p.signature.field(name));
}
const HostTensor& host(const Problem& p, const std::string& name) {
  return p.values[static_cast<size_t>(p.index_of(name))];
}
const Layout& layout(const Problem& p, const std::string& name) {
  return p.layouts[static_cast<size_t>(p.index_of(name))];
}

std::string present(const Problem& p) {
  std::string text;
  for (const Field& f : p.signature.fields)
    if (p.args.tensor(f)) text += f.name + ":" + name_of(p.args.tensor(f).dtype) + " ";
  return text;
}

std::vector<int64_t> strides(const Problem& p, const std::string& name) { return layout(p, name).stride; }
using Extents = std::vector<int64_t>;

// ------------------------------------------------------------------------------------------ presence and
// dtypes

TEST(Problem, DtypesFollowTheirRules) {
  EXPECT_EQ(present(made("rms_norm.fwd:M=2,N=8")), "x:f32 weight:f32 y:f32 rstd:f32 ");
  EXPECT_EQ(present(made("rms_norm.fwd:M=2,N=8,x=bf16,residual=f32")),
            "x:bf16 residual:f32 weight:bf16 y:bf16 residual_out:f32 rstd:f32 ");
  EXPECT_EQ(present(made("rms_norm.fwd:M=2,N=8,x=f16,weight=none,rstd=none")), "x:f16 y:f16 ");
  EXPECT_EQ(present(made("cross_entropy.fwd:T=2,V=8,logits=bf16")),
            "logits:bf16 labels:i64 loss:f32 lse:f32 ");
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
  EXPECT_EQ(
      present(made("causal_conv1d.bwd:T=3,D=2,initial_state=bf16,final_state=f32")),
      "x:f32 weight:f32 initial_state:bf16 dy:f32 dfinal_state:f32 dx:f32 dweight:f32 dinitial_state:bf16 ");
}

TEST(Problem, EveryDefaultProblemIsValid) {
  for (const char* text : {"rms_norm.fwd:M=3,N=8", "rms_norm.bwd:M=3,N=8,residual=bf16", "swiglu.fwd:M=3,F=8",
                           "swiglu.bwd:M=3,F=8", "cross_entropy.fwd:T=3,V=8", "cross_entropy.bwd:T=3,V=8",
                           "cross_entropy.fwd_bwd:T=3,V=8", "causal_conv1d.fwd:B=2,T=3,D=8",
                           "causal_conv1d.bwd:T=9,D=8,cu_seqlens=i32", "causal_conv1d.states:T=3,D=8",
                           "causal_conv1d.update:N=3,D=8", "rms_norm.fwd:M=3,N=8,omit=1",
                           "rms_norm.fwd:M=3,G=2,N=8,x.pad=3,y.gap=5", "swiglu.fwd:M=3,F=8,z.alias=1,x.pad=2",
                           "causal_conv1d.fwd:T=9,D=8,x.inner=3,y.inner=2"}) {
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

// ---------------------------------------------------------------------------------------------- shapes,
// layouts

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

// --------------------------------------------------------------------------------------------------------
// values

TEST(Problem, ValuesAreStoredValuesAndRepeatable) {
  const Problem p = made("swiglu.fwd:M=30,F=40,x=bf16,y=f16"),
                again = made("swiglu.fwd:M=30,F=40,x=bf16,y=f16");
  EXPECT_EQ(host(p, "x").real, host(again, "x").real);
  for (const double v : host(p, "x").real) EXPECT_EQ(v, round_to(DType::bf16, v));
  for (const double v : host(p, "y").real) EXPECT_EQ(v, round_to(DType::f16, v));
  EXPECT_NE(host(p, "x").real, host(p, "y").real);
  EXPECT_NE(host(p, "x").real, host(made("swiglu.fwd:M=30,F=40,x=bf16,y=f16,seed=1"), "x").real);
  EXPECT_TRUE(host(p, "z").real.empty());
}

TEST(Problem, ABackwardGetsWhatItsForwardSaved) {
  const std::string keys = "M=5,N=16,x=bf16,residual=f32,eps=0.5";
  const Problem back = made("rms_norm.bwd:" + keys);
  const Problem forward = made("rms_norm.fwd:" + keys + ",seed=" + std::to_string(back.origin.seed()));
  Evaluation<double> e = inputs_as<double>(forward);
  evaluate(forward, e);
  for (const char* name : {"rstd", "residual_out"}) {
    const std::vector<double>& there = e.values[static_cast<size_t>(forward.index_of(name))];
    const std::vector<double>& here = host(back, name).real;
    ASSERT_EQ(here.size(), there.size()) << name;
    for (size_t i = 0; i < here.size(); ++i) EXPECT_EQ(here[i], round_to(DType::f32, there[i])) << name;
  }
  EXPECT_EQ(host(back, "weight").real, host(forward, "weight").real);
  EXPECT_NE(host(back, "rstd").real,
            host(made("rms_norm.bwd:M=5,N=16,x=bf16,residual=f32,seed=" + std::to_string(back.origin.seed())),
                 "rstd")
                .real);  // eps counts
}

TEST(Problem, EmptyTensorsHaveNoValues) {
  const Problem p = made("rms_norm.bwd:M=0,N=8");
  EXPECT_EQ(host(p, "dy").real.size(), 0u);
  EXPECT_EQ(layout(p, "dy").span, 0);
  EXPECT_EQ(host(made("causal_conv1d.fwd:T=0,D=2,cu_seqlens=i32,N=0,lens=equal"), "cu_seqlens").integer,
            (Extents{0}));
}

// ------------------------------------------------------------------------------------------------------
// sampling

constexpr const char* kLarge = "rms_norm.bwd:M=40000,N=64,x=bf16";

TEST(Sample, SmallProblemsAreWhole) {
  EXPECT_TRUE(made("rms_norm.fwd:M=4096,N=512,x=bf16,weight=none").sample.empty());
  EXPECT_TRUE(
      made("rms_norm.fwd:M=4,N=1048576,x=bf16,weight=none").sample.empty());  // too few rows to choose from
}

TEST(Sample, TakesTheEndsEdgesAndOthers) {
  const Problem p = made(kLarge);
  ASSERT_FALSE(p.sample.empty());
  EXPECT_TRUE(std::is_sorted(p.sample.begin(), p.sample.end()));
  const std::set<int64_t> sample(p.sample.begin(), p.sample.end());
  EXPECT_EQ(sample.size(), 64u);
  for (const int64_t row : {0, 1, 127, 128, 263, 264, 39999}) EXPECT_TRUE(sample.count(row)) << row;
  EXPECT_GT(std::count_if(sample.begin(), sample.end(), [](int64_t row) { return row > 264 && row < 39999; }),
            40);
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

// Nothing makes a row of a distillation loss add nothing but an ignored label.
TEST(Sample, SumsOverRowsAreSampledOnlyWhereTheOthersAddNothing) {
  EXPECT_TRUE(made("kl_div_logits.fwd_bwd:T=64,V=40000").sample.empty());
  EXPECT_FALSE(made("kl_div_logits.fwd_bwd:T=64,V=40000,labels=i32").sample.empty());
  EXPECT_FALSE(made("kl_div_logits.fwd_bwd:T=64,V=40000,reduction=none").sample.empty());
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

TEST(Storage, OfALargeWeightToBeTimedIsLikeData) {
  const Problem p = make_timed_problem(parse_case("linear_cross_entropy.fwd:T=64,H=256,V=16384,x=bf16"));
  EXPECT_FALSE(p.quiet);
  EXPECT_TRUE(host(p, "weight").real.empty());
  EXPECT_FALSE(host(p, "x").real.empty());
  const std::vector<double> whole = stored(p, "weight", 0, 256 * 16384), part = stored(p, "weight", 12345, 300000);
  EXPECT_TRUE(std::equal(part.begin(), part.end(), whole.begin() + 12345));
  double squares = 0;
  for (const double v : whole) squares += v * v;
  EXPECT_NEAR(squares / static_cast<double>(whole.size()), 1, 0.1);
  EXPECT_FALSE(host(make_timed_problem(parse_case("rms_norm.bwd:M=4,N=64")), "rstd").real.empty());  // nothing large
}

// Splits what is stored of a field into the sample's elements, in order, and the others.
struct StoredParts {
  std::vector<double> sample, others;
};
StoredParts stored_parts(const Problem& p, const Field& f) {
  const Tensor& t = p.args.tensor(f);
  const int64_t extent =
      p.dims.at(p.origin.direction->sample_dim);  // no other dimension of these cases has it
  int64_t inner = 1, whole = 1;
  for (int d = t.rank - 1; d >= 0 && whole == 1; --d)
    if (t.size[d] == extent) whole = extent;
    else inner *= t.size[d];
  StoredParts parts;
  const std::vector<double> all = stored(p, f.name, 0, count(t));
  for (size_t i = 0; i < all.size(); ++i) {
    const int64_t index = static_cast<int64_t>(i) / inner % whole;
    const bool in_sample = whole == 1 || std::binary_search(p.sample.begin(), p.sample.end(), index);
    (in_sample ? parts.sample : parts.others).push_back(all[i]);
  }
  return parts;
}

void expect_neutral(const Problem& p, const Field& f, const StoredParts& parts) {
  const HostTensor& kept = p.values[static_cast<size_t>(p.index_of(f.name))];
  const std::vector<double> integers(kept.integer.begin(), kept.integer.end());
  EXPECT_EQ(parts.sample, kept.real.empty() ? integers : kept.real) << p.origin.text() << " " << f.name;
  const std::set<double> others(parts.others.begin(), parts.others.end());
  if (others.empty()) return;  // no sample_dim
  const std::string text = p.origin.text() + " " + f.name;
  if (f.name[0] == 'd') EXPECT_EQ(others, std::set<double>{0}) << text;
  else if (f.name == "rstd" || f.name == "lse") EXPECT_EQ(others, std::set<double>{1}) << text;
  else if (f.name == "labels") EXPECT_EQ(others, std::set<double>{-100}) << text;
  else EXPECT_TRUE(others.size() > 100 && *others.begin() > -2 && *others.rbegin() < 2) << text;
}

TEST(Storage, OfASampleIsNeutralOutsideIt) {
  for (const char* text : {kLarge, "causal_conv1d.bwd:B=2,T=300,D=5000,x=bf16",
                           "cross_entropy.bwd:T=30000,V=100,reduction=none"}) {
    const Problem p = made(text);
    ASSERT_FALSE(p.sample.empty()) << text;
    for (const Field& f : p.signature.fields)
      if (p.args.tensor(f) && f.role == Role::input) expect_neutral(p, f, stored_parts(p, f));
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

// ------------------------------------------------------------------------------------------------------
// rounding

}  // namespace
}  // namespace fla::harness
