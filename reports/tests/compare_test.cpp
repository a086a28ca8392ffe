#include "reports/compare.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <random>

#include "reports/console.h"
#include "reports/json.h"
#include "reports/tests/sample_results.h"

namespace fla::reports {
namespace {

using harness::CaseStatus;
using harness::Result;
using harness::RunResult;
using harness::Timing;

double middle(std::vector<double> values) {
  std::nth_element(values.begin(), values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2),
                   values.end());
  return values[values.size() / 2];
}

// Three rounds of 40 samples around `us` with a spread of 0.5 %.
Timing measured(double us, uint64_t seed, double clock = 1980) {
  std::mt19937_64 random(seed);
  Timing t;
  for (int round = 0; round < 3; ++round) {
    std::vector<double> samples;
    for (int i = 0; i < 40; ++i) samples.push_back(us * (1 + 0.01 * (double(random() % 1000) / 1000 - 0.5)));
    t.round_medians_us.push_back(middle(samples));
    t.samples_us.insert(t.samples_us.end(), samples.begin(), samples.end());
  }
  t.median_us = middle(t.samples_us);
  t.clock_mhz.assign(t.samples_us.size(), clock);
  t.noise = 0.005;
  return t;
}

Result timed(const Timing& cold, const std::string& key = "rms_norm.fwd:M=8,N=8") {
  Result r = passed_result("rms_norm", key);
  r.timed = true;
  r.cold = cold;
  return r;
}

RunResult run_of(std::vector<Result> cases) { return {sample_run_info(), std::move(cases), 0}; }

Comparison compare_one(const Result& before, const Result& after, const CompareOptions& options = {}) {
  return compare(run_of({before}), run_of({after}), options);
}

Verdict verdict_of(const Timing& before, const Timing& after) {
  return compare_one(timed(before), timed(after)).cases.at(0).times.at(0).verdict;
}

TEST(Ratio, JudgesAgainstHandMadeIntervals) {
  EXPECT_EQ(judge({1.05, 1.04, 1.06}, 0.03), Verdict::slower);
  EXPECT_EQ(judge({0.95, 0.94, 0.96}, 0.03), Verdict::faster);
  EXPECT_EQ(judge({1, 0.98, 1.02}, 0.03), Verdict::same);
  EXPECT_EQ(judge({1.03, 1.02, 1.04}, 0.03), Verdict::unclear);
  EXPECT_EQ(judge({1, 0.9, 1.1}, 0.03), Verdict::unclear);
  EXPECT_EQ(judge({1, std::nan(""), std::nan("")}, 0.03), Verdict::unclear);
}

TEST(Ratio, IsRepeatableAndContainsItsValue) {
  const Ratio a = ratio_of_medians(measured(100, 1), measured(104, 2), 7);
  const Ratio b = ratio_of_medians(measured(100, 1), measured(104, 2), 7);
  EXPECT_EQ(a.low, b.low);
  EXPECT_EQ(a.high, b.high);
  EXPECT_LE(a.low, a.value);
  EXPECT_GE(a.high, a.value);
  EXPECT_NEAR(a.value, 1.04, 0.005);
}

TEST(Ratio, DriftBetweenRoundsWidensTheInterval) {
  Timing steady = measured(100, 1), drifting = steady;
  drifting.round_medians_us = {94, 100, 106};
  const Ratio narrow = ratio_of_medians(steady, steady, 7), wide = ratio_of_medians(steady, drifting, 7);
  EXPECT_GT(wide.high - wide.low, 5 * (narrow.high - narrow.low));
}

TEST(Ratio, WithoutSamplesTheNoiseIsTheInterval) {
  Timing before, after;
  before.median_us = after.median_us = 100;
  before.noise = after.noise = 0.01;
  const Ratio r = ratio_of_medians(before, after, 1);
  EXPECT_DOUBLE_EQ(r.low, 0.98);
  EXPECT_DOUBLE_EQ(r.high, 1.02);
}

// The interval holds the true ratio about as often as it says; the rounds only make it wider.
TEST(Ratio, IntervalCoversTheTruth) {
  int covered = 0;
  for (uint64_t i = 0; i < 40; ++i) {
    const Ratio r = ratio_of_medians(measured(100, 2 * i), measured(102, 2 * i + 1), i);
    covered += r.low <= 1.02 && 1.02 <= r.high;
  }
  EXPECT_GE(covered, 35);
}

TEST(Compare, VerdictsOnSyntheticSamples) {
  EXPECT_EQ(verdict_of(measured(100, 1), measured(100, 2)), Verdict::same);
  EXPECT_EQ(verdict_of(measured(100, 1), measured(102, 2)), Verdict::same);
  EXPECT_EQ(verdict_of(measured(100, 1), measured(105, 2)), Verdict::slower);
  EXPECT_EQ(verdict_of(measured(100, 1), measured(95, 2)), Verdict::faster);
  EXPECT_EQ(verdict_of(measured(100, 1), measured(103, 2)), Verdict::unclear);
}

TEST(Compare, TwoHumpsAreUnclear) {
  Timing bimodal = measured(100, 1);
  for (size_t i = 0; i < bimodal.samples_us.size(); i += 2) bimodal.samples_us[i] *= 1.1;
  EXPECT_EQ(verdict_of(measured(100, 2), bimodal), Verdict::unclear);
}

TEST(Compare, SmallTimesHaveTheWiderThreshold) {
  EXPECT_EQ(verdict_of(measured(5, 1), measured(5.3, 2)), Verdict::same);
  EXPECT_EQ(verdict_of(measured(5, 1), measured(5.8, 2)), Verdict::slower);
}

TEST(Compare, AClockShiftIsNoVerdict) {
  const Comparison c = compare_one(timed(measured(100, 1, 1980)), timed(measured(106, 2, 1870)));
  EXPECT_EQ(c.cases[0].times[0].verdict, Verdict::unclear);
  EXPECT_TRUE(c.cases[0].times[0].clocks_differ);
  EXPECT_FALSE(c.regression);
  const Comparison slower_in_both = compare_one(timed(measured(100, 1, 1980)), timed(measured(120, 2, 1900)));
  EXPECT_EQ(slower_in_both.cases[0].times[0].verdict, Verdict::slower);
}

TEST(Compare, HotTimesAreJudgedToo) {
  Result before = timed(measured(100, 1)), after = before;
  before.hot = measured(50, 3);
  after.hot = measured(60, 4);
  const Comparison c = compare_one(before, after);
  ASSERT_EQ(c.cases[0].times.size(), 2u);
  EXPECT_EQ(c.cases[0].times[1].verdict, Verdict::slower);
  EXPECT_TRUE(c.regression);
}

TEST(Compare, SlowerIsARegressionFasterIsNot) {
  EXPECT_TRUE(compare_one(timed(measured(100, 1)), timed(measured(105, 2))).regression);
  EXPECT_FALSE(compare_one(timed(measured(100, 1)), timed(measured(95, 2))).regression);
}

TEST(Compare, OneMoreByteIsARegression) {
  for (int64_t harness::Memory::*field : {&harness::Memory::workspace, &harness::Memory::saved}) {
    Result before = timed(measured(100, 1)), after = before;
    after.memory.*field += 1;
    EXPECT_TRUE(compare_one(before, after).regression);
    EXPECT_FALSE(compare_one(after, before).regression);
    EXPECT_EQ(compare_one(after, before).cases[0].notes.size(), 1u);
  }
}

TEST(Compare, TwiceTheBoundIsARegression) {
  const auto using_share = [](double share) {
    Result r = passed_result("a", "a.fwd:M=1");
    r.checks[0].bound_used = share;
    return r;
  };
  EXPECT_TRUE(compare_one(using_share(0.3), using_share(0.7)).regression);
  EXPECT_FALSE(compare_one(using_share(0.4), using_share(0.7)).regression);
  EXPECT_FALSE(compare_one(using_share(0.01), using_share(0.2)).regression);
  EXPECT_TRUE(compare_one(using_share(0.3), using_share(std::nan(""))).regression);
  Result broken = using_share(std::nan(""));
  broken.status = CaseStatus::failed;
  EXPECT_FALSE(compare_one(broken, using_share(0.3)).regression);
}

TEST(Compare, StatusChangesComeFirst) {
  Result broken = passed_result("a", "a.fwd:M=2");
  broken.status = CaseStatus::crashed;
  const Comparison c = compare(run_of({timed(measured(100, 1)), passed_result("a", "a.fwd:M=2")}),
                               run_of({timed(measured(150, 1)), broken}), {});
  EXPECT_EQ(c.cases[0].id, "a.fwd:M=2");
  EXPECT_TRUE(c.cases[0].regression);
  EXPECT_TRUE(c.regression);
}

TEST(Compare, ARepairIsToldAndIsNoRegression) {
  Result broken = passed_result("a", "a.fwd:M=2");
  broken.status = CaseStatus::failed;
  const Comparison c = compare_one(broken, passed_result("a", "a.fwd:M=2"));
  EXPECT_FALSE(c.regression);
  EXPECT_NE(comparison_markdown(c).find("failed -> passed"), std::string::npos) << comparison_markdown(c);
}

TEST(Compare, MissingAndSkippedFailUnlessAllowed) {
  const Result a = passed_result("a", "a.fwd:M=1"), b = passed_result("a", "a.fwd:M=2");
  Result skipped = b;
  skipped.status = CaseStatus::skipped;
  CompareOptions lenient;
  lenient.allow_missing = true;
  const Comparison gone = compare(run_of({a, b}), run_of({a}), {});
  EXPECT_EQ(gone.missing, std::vector<std::string>{"a.fwd:M=2"});
  EXPECT_TRUE(gone.regression);
  EXPECT_FALSE(compare(run_of({a, b}), run_of({a}), lenient).regression);
  EXPECT_TRUE(compare_one(b, skipped).regression);
  EXPECT_FALSE(compare_one(b, skipped, lenient).regression);
  const Comparison more = compare(run_of({a}), run_of({a, b}), {});
  EXPECT_EQ(more.added, std::vector<std::string>{"a.fwd:M=2"});
  EXPECT_FALSE(more.regression);
}

TEST(Compare, BackendsAndRepetitionsDoNotMix) {
  Result gpu = passed_result("a", "a.fwd:M=1"), emulated = gpu;
  emulated.backend = "emulator";
  const Comparison c = compare(run_of({gpu, gpu, emulated}), run_of({emulated, gpu, gpu}), {});
  EXPECT_EQ(c.cases.size(), 3u);
  EXPECT_TRUE(c.missing.empty());
  EXPECT_EQ(compare_one(gpu, emulated).missing.size(), 1u);
}

TEST(Compare, RefusesOtherMachinesUnlessForced) {
  const auto refused = [](auto change) {
    RunResult before = run_of({timed(measured(100, 1))}), after = before;
    change(after.run);
    CompareOptions forced;
    forced.force = true;
    EXPECT_EQ(compare(before, after, forced).cases.size(), 1u);
    EXPECT_FALSE(compare(before, after, forced).refused);
    return compare(before, after, {}).refused;
  };
  EXPECT_TRUE(refused([](auto& run) { run.device_name = "NVIDIA H100"; }));
  EXPECT_TRUE(refused([](auto& run) { run.driver = "575.1"; }));
  EXPECT_TRUE(refused([](auto& run) { run.build_type = "Debug"; }));
  EXPECT_FALSE(refused([](auto& run) { run.driver = "580.999"; }));
  EXPECT_FALSE(refused([](auto& run) { run.suites.clear(); }));
}

TEST(Compare, EveryFaceTellsTheSame) {
  const Comparison c = compare_one(timed(measured(100, 1)), timed(measured(110, 2)));
  for (const std::string& text : {comparison_markdown(c), comparison_json(c), compare_report(c, false)}) {
    EXPECT_NE(text.find("slower"), std::string::npos) << text;
    EXPECT_NE(text.find("REGRESSION"), std::string::npos) << text;
  }
  const Json json = parse_json(comparison_json(c), "comparison");
  EXPECT_EQ(json["cases"][0]["times"][0]["verdict"], "slower");
  EXPECT_NE(comparison_sentence(c).find("over 1, worst 1.1"), std::string::npos) << comparison_sentence(c);
}

}  // namespace
}  // namespace fla::reports
