// Which cases a run covers, what becomes of them, and what the run is worth in the end.
#include "harness/selection.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <fstream>

#include "harness/check_backends.h"
#include "harness/check_plan.h"

namespace fla::harness {
namespace {

Selection of(std::vector<std::string> cases) {
  Selection s;
  s.cases = std::move(cases);
  return s;
}

std::vector<std::string> texts(const SelectedCases& selected) {
  std::vector<std::string> all;
  for (const Case& c : selected.cases) all.push_back(c.text());
  return all;
}

TEST(Selection, NamedCasesAloneAreTheSelection) {
  const auto selected = select_cases(of({"swiglu.fwd:M=3,F=5", "swiglu.fwd:F=5,M=3", "swiglu.bwd:M=3,F=5"}));
  EXPECT_EQ(texts(selected),
            (std::vector<std::string>{"swiglu.fwd:M=3,F=5", "swiglu.bwd:M=3,F=5"}));  // no twins
  EXPECT_TRUE(selected.sources.empty());
}

TEST(Selection, OptionsDoNotSwallowCases) {
  Selection s;
  CLI::App app;
  add_selection_options(app, s);
  app.parse("--filter *fwd* swiglu.fwd:M=3,F=5 --axis M=1,2 swiglu.bwd:M=3,F=5 --filter=-*M=2*");
  EXPECT_EQ(s.cases.size(), 2u);
  EXPECT_EQ(s.filters, (std::vector<std::string>{"*fwd*", "-*M=2*"}));
  EXPECT_EQ(s.axes, (std::vector<std::string>{"M=1,2"}));
  EXPECT_EQ(texts(select_cases(s)), (std::vector<std::string>{"swiglu.fwd:M=1,F=5"}));
}

TEST(Selection, SeedChangesDataNotIdentity) {
  Selection s = of({"swiglu.fwd:M=3,F=5"});
  const Case hashed = select_cases(s).cases.at(0);
  s.seed = "7";
  const SelectedCases fixed = select_cases(s);
  EXPECT_EQ(fixed.cases.at(0).seed(), 7u);
  EXPECT_EQ(fixed.cases.at(0).key(), hashed.key());
  EXPECT_EQ(fixed.seed_policy, "7");
  s.seed = "random";
  const SelectedCases random = select_cases(s);
  EXPECT_EQ(random.seed_policy, "random: " + std::to_string(random.cases.at(0).seed()));
  s.seed = "-1";
  EXPECT_THROW(select_cases(s), UsageError);
}

TEST(Selection, ShardsPartition) {
  int members = 0;
  for (int i = 0; i < 200; ++i) {
    const std::string key = "swiglu.fwd:M=" + std::to_string(i);
    int shards = 0;
    for (const char* shard : {"1/3", "2/3", "3/3"}) shards += in_shard(key, shard);
    EXPECT_EQ(shards, 1);
    members += in_shard(key, "1/3");
  }
  EXPECT_GT(members, 30);
  EXPECT_LT(members, 110);
  for (const char* bad : {"0/3", "4/3", "1", "1/0", "x/3", "1/", "-1/3"})
    EXPECT_THROW(in_shard("key", bad), UsageError) << bad;
}

TEST(Selection, NonsenseIsAUsageError) {
  EXPECT_THROW(select_cases(of({"swiglu.fwd"})), UsageError);
  EXPECT_THROW(select_cases(of({"no_such_operator.fwd:M=1"})), UsageError);
  Selection s;
  s.suite = "/nonexistent.json";
  EXPECT_THROW(select_cases(s), UsageError);
}

TEST(Selection, DevicesAreIndicesOrAll) {
  EXPECT_EQ(parse_devices("all", 3), (std::vector<int>{0, 1, 2}));
  EXPECT_EQ(parse_devices("2,0", 3), (std::vector<int>{0, 2}));
  EXPECT_EQ(parse_devices("1,0,1", 3), (std::vector<int>{0, 1, 1}));  // two workers on one GPU
  for (const char* bad : {"3", "-1", "", "a", "0,,1"}) EXPECT_THROW(parse_devices(bad, 3), UsageError) << bad;
}

TEST(CheckPlan, ReferencesAreProvenOncePerCaseTheyCanTellApart) {
  const auto cases =
      select_cases(of({"swiglu.fwd:M=3,F=5", "swiglu.fwd:M=3,F=5,x.pad=8", "swiglu.fwd:M=4,F=5"})).cases;
  const auto jobs = plan_jobs(cases, {"emulator", true, 1});
  ASSERT_EQ(jobs.size(), 5u);
  EXPECT_EQ(jobs[1].request, "check swiglu.fwd:M=3,F=5,x.pad=8");
  EXPECT_EQ(jobs[1].blank.backend, "emulator");
  EXPECT_EQ(jobs[1].blank.repro, "fla-check swiglu.fwd:M=3,F=5,x.pad=8 --backend emulator");
  EXPECT_EQ(jobs[3].request, "differentiate swiglu.fwd:M=3,F=5");
  EXPECT_EQ(jobs[3].blank.backend, "reference");
  EXPECT_FALSE(jobs[3].needs_device);
  EXPECT_EQ(jobs[4].request, "differentiate swiglu.fwd:M=4,F=5");
  EXPECT_EQ(plan_jobs(cases, {"gpu", false, 1}).size(), 3u);
  EXPECT_EQ(plan_jobs(cases, {"", true, 1}).size(), 2u);
}

std::vector<Result> with(std::initializer_list<CaseStatus> statuses) {
  std::vector<Result> results;
  for (const CaseStatus status : statuses) {
    results.emplace_back();
    results.back().status = status;
  }
  return results;
}

TEST(CheckPlan, ExitCodes) {
  using S = CaseStatus;
  EXPECT_EQ(exit_code_of({}, false, {}), kNothingRan);
  EXPECT_EQ(exit_code_of({}, false, {true, 0}), kPassed);
  EXPECT_EQ(exit_code_of(with({S::skipped, S::listed}), false, {}), kNothingRan);
  EXPECT_EQ(exit_code_of(with({S::skipped, S::passed}), false, {}), kPassed);
  EXPECT_EQ(exit_code_of(with({S::passed}), false, {false, 2}), kNothingRan);
  EXPECT_EQ(exit_code_of(with({S::passed}), false, {true, 2}), kNothingRan);
  EXPECT_EQ(exit_code_of(with({S::passed, S::passed}), true, {}), kInterrupted);
  for (const S bad : {S::failed, S::mistrusted, S::rejected, S::crashed, S::timeout, S::out_of_memory})
    EXPECT_EQ(exit_code_of(with({S::passed, bad}), false, {true, 0}), kFailed) << name_of(bad);
}

}  // namespace
}  // namespace fla::harness
