#include "harness/case.h"

#include <gtest/gtest.h>

#include "harness/case_keys.h"
#include "harness/problem.h"
#include "harness/suite.h"

namespace fla::harness {
namespace {

std::string printed(const std::string& text) { return parse_case(text).text(); }

std::string refusal(const std::string& text) {
  try {
    parse_case(text);
  } catch (const UsageError& e) {
    EXPECT_EQ(e.full.find('\n'), std::string::npos);
    return e.what();
  }
  ADD_FAILURE() << text << " was taken";
  return {};
}

void expect_refused(const std::string& text, const std::string& because) {
  EXPECT_NE(refusal(text).find(because), std::string::npos) << text << " gave: " << refusal(text);
}

TEST(Case, PrintsInOneOrderWhateverTheOrderGiven) {
  EXPECT_EQ(printed("rms_norm.fwd:seed=7,fill=exact,x.pad=3,residual=bf16,x=bf16,eps=0.001,N=8,M=2"),
            "rms_norm.fwd:M=2,N=8,eps=0.001,x=bf16,residual=bf16,x.pad=3,fill=exact,seed=7");
}

TEST(Case, LeavesOutWhatItWouldHaveAnyway) {
  EXPECT_EQ(
      printed(
          "rms_norm.fwd:M=2,N=8,G=1,eps=1e-5,weight_per_group=false,x.pad=0,x.inner=1,fill=normal,omit=0"),
      "rms_norm.fwd:M=2,N=8");
  EXPECT_EQ(printed("rms_norm.fwd:M=2,N=8,x=bf16,weight=bf16,residual=none,y=bf16,rstd=f32"),
            "rms_norm.fwd:M=2,N=8,x=bf16");
  EXPECT_EQ(printed("causal_conv1d.fwd:T=8,D=4,W=3,S=3"), "causal_conv1d.fwd:T=8,D=4,W=3");
  EXPECT_EQ(printed("causal_conv1d.fwd:T=3,D=4,N=2,cu_seqlens=i64,lens=1+2"),
            "causal_conv1d.fwd:T=3,D=4,cu_seqlens=i64,lens=1+2");
}

TEST(Case, KeepsWhatDiffersFromTheDefault) {
  for (const char* text :
       {"rms_norm.fwd:M=2,N=8,x=bf16,weight=f32", "rms_norm.fwd:M=2,N=8,weight=none,rstd=none",
        "rms_norm.fwd:M=2,N=8,x=bf16,residual=bf16,residual_out=none",
        "rms_norm.bwd:M=2,N=8,dresidual=none,residual=f32", "causal_conv1d.fwd:T=8,D=4,W=3,S=4",
        "cross_entropy.fwd:T=2,V=8,softcap=30,reduction=none,ignore=0.5"})
    EXPECT_EQ(printed(text), text);
}

TEST(Case, ABackwardTakesTheKeysOfItsForward) {
  EXPECT_EQ(printed("rms_norm.bwd:M=2,N=8,residual=bf16,eps=0.5"),
            "rms_norm.bwd:M=2,N=8,eps=0.5,residual=bf16");
  expect_refused("rms_norm.fwd:M=2,N=8,dy=f32", "unknown key \"dy\"");
}

TEST(Case, RealsRoundTrip) {
  EXPECT_EQ(printed("rms_norm.fwd:M=1,N=8,eps=0.00000100000000000001"), "rms_norm.fwd:M=1,N=8,eps=1e-06");
  EXPECT_EQ(printed("cross_entropy.fwd:T=1,V=8,label_smoothing=0.10"),
            "cross_entropy.fwd:T=1,V=8,label_smoothing=0.1");
  EXPECT_EQ(printed("cross_entropy.fwd:T=1,V=8,softcap=inf"), "cross_entropy.fwd:T=1,V=8");
}

TEST(Case, ParseAndPrintAreInverseOnEverySuite) {
  size_t seen = 0;
  for (const char* tier : {"nightly", "bench"})
    for (const Case& c : load_suites(FLA_SUITES_DIR, tier).cases) {
      const Case again = parse_case(c.text());
      EXPECT_EQ(again.text(), c.text());
      EXPECT_EQ(again.seed(), c.seed());
      EXPECT_EQ(again.direction, c.direction);
      ++seen;
    }
  EXPECT_GT(seen, 100u);
}

TEST(Case, SeedIsAHashOfTheRestUnlessGiven) {
  const Case plain = parse_case("swiglu.fwd:M=2,F=8"), other = parse_case("swiglu.fwd:M=3,F=8");
  EXPECT_NE(plain.seed(), other.seed());
  EXPECT_EQ(plain.seed(), parse_case("swiglu.fwd:F=8,M=2").seed());
  const Case seeded = parse_case("swiglu.fwd:M=2,F=8,seed=18446744073709551615");
  EXPECT_EQ(seeded.seed(), ~uint64_t{0});
  EXPECT_EQ(seeded.key(), plain.text());
  EXPECT_NE(seeded.text(), plain.text());
}

TEST(Case, NamesTheNearestKnownName) {
  expect_refused("rms_nrm.fwd:M=1,N=1", "unknown operator \"rms_nrm.fwd\", did you mean rms_norm.fwd?");
  expect_refused("rms_norm.fwd:M=1,N=1,wieght=f32", "did you mean weight?");
  expect_refused("rms_norm.fwd:M=1,N=1,x=bf61", "unknown dtype \"bf61\", did you mean bf16?");
  expect_refused("cross_entropy.fwd:T=1,V=2,reduction=men", "did you mean mean?");
  expect_refused("rms_norm.fwd:M=1,N=1,fill=norml", "did you mean normal?");
}

TEST(Case, RefusesWhatIsMalformed) {
  expect_refused("rms_norm.fwd:M=1,N", "\"N\" is not key=value");
  expect_refused("rms_norm.fwd:M=1,=3", "is not key=value");
  expect_refused("rms_norm.fwd:M=1,M=2,N=8", "given twice");
  expect_refused("", "unknown operator");
  for (const char* value :
       {"", "x", "1.5", "1e3", "0x10", " 1", "99999999999999999999", "-1", "1000000000000000"})
    expect_refused(std::string("rms_norm.fwd:N=8,M=") + value, "M: ");
  expect_refused("rms_norm.fwd:M=1,N=1,eps=nan", "is no number");
  expect_refused("rms_norm.fwd:M=1,N=1,weight_per_group=2", "neither 0 nor 1");
  expect_refused("rms_norm.fwd:M=1,N=1,omit=2", "more than 1");
  expect_refused("rms_norm.fwd:M=1,N=1,x.inner=0", "must be positive");
  expect_refused("rms_norm.fwd:M=1,N=1,seed=-1", "seed");
  expect_refused("cross_entropy.fwd:T=1,V=2,ignore=1.5", "between 0 and 1");
}

TEST(Case, RefusesWhatContradictsTheSignature) {
  expect_refused("rms_norm.fwd:M=1", "dimension N is not given");
  expect_refused("rms_norm.fwd:M=1,N=1,x=none", "x: is required");
  expect_refused("rms_norm.fwd:M=1,N=1,rstd=f16", "dtype f16 is not supported");
  expect_refused("rms_norm.fwd:M=1,N=2,x.inner=2", "inner stride must be 1");
  expect_refused("rms_norm.fwd:M=1,N=2,y.broadcast=1", "only inputs");
  expect_refused("rms_norm.fwd:M=1,N=2,rstd.alias=1", "may alias nothing");
  expect_refused("rms_norm.fwd:M=1,N=2,residual_out=f32,residual_out.alias=1", "may alias nothing");
  expect_refused("rms_norm.fwd:M=1,N=2,G=2,omit=1", "can be left out");
  expect_refused("rms_norm.bwd:M=2,N=2,rstd=none", "rstd: the forward case does not produce it");
  expect_refused("rms_norm.bwd:M=2,N=2,rstd.broadcast=1", "only inputs");
  expect_refused("causal_conv1d.fwd:T=281474976710656,D=281474976710656", "too large");
}

TEST(Case, RefusesKeysThatSpeakOfNothing) {
  expect_refused("rms_norm.fwd:M=2,N=2,ignore=0.5", "no labels");
  expect_refused("rms_norm.fwd:M=2,N=2,lens=1+1", "no packed sequences");
  expect_refused("causal_conv1d.fwd:T=2,D=2,offsets.invalid=1", "no offsets");
  expect_refused("causal_conv1d.fwd:T=2,D=2,N=3", "N: no tensor");
}

TEST(Case, RefusesLengthsThatDoNotFit) {
  expect_refused("causal_conv1d.fwd:T=3,D=2,cu_seqlens=i32,N=3,lens=1+2", "2 lengths for 3 sequences");
  expect_refused("causal_conv1d.fwd:T=4,D=2,cu_seqlens=i32,lens=1+2", "sums to 3, not to 4");
  expect_refused("causal_conv1d.fwd:T=4,D=2,cu_seqlens=i32,lens=1+", "lens");
  expect_refused("causal_conv1d.fwd:T=4,D=2,cu_seqlens=i32,lens=-1+5", "negative");
  expect_refused("causal_conv1d.fwd:T=4,D=2,cu_seqlens=i32,lens=9223372036854775807+9223372036854775807",
                 "lens");
}

TEST(Case, IdsOfSequencesComeInRunsOfSomeLength) {
  const Problem p = make_problem(parse_case("causal_conv1d.fwd:B=2,T=7,D=1,seq_idx=i32,lens=2+1"));
  EXPECT_EQ(p.values[static_cast<size_t>(p.index_of("seq_idx"))].integer,
            (std::vector<int64_t>{0, 0, 1, 2, 2, 3, 4, 0, 0, 1, 2, 2, 3, 4}));
  expect_refused("causal_conv1d.fwd:T=4,D=2,seq_idx=i32,lens=equal", "need lengths");
  expect_refused("causal_conv1d.fwd:T=4,D=2,seq_idx=i32,lens=0", "need lengths");
}

TEST(Case, NearestIsSilentWhenNothingIsNear) {
  EXPECT_EQ(nearest("residul", {"x", "residual", "rstd"}), "residual");
  EXPECT_EQ(nearest("qqqqqqqqqq", {"x", "residual"}), "");
}

}  // namespace
}  // namespace fla::harness
