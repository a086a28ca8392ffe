// The self-test tested: all nets catch all faults, and the self-test notices when one of them hangs loose.
#include "harness/self_test.h"

#include <gtest/gtest.h>

#include "harness/self_test_layers.h"

namespace fla::harness {
namespace {

const KillMatrix& all_faults() {
  static const KillMatrix matrix = [] {
    KillMatrix m;
    plant_all_faults(m);
    return m;
  }();
  return matrix;
}

TEST(SelfTest, EveryFaultIsCaughtAndNothingRightReported) {
  EXPECT_TRUE(all_faults().complete()) << all_faults().summary();
  EXPECT_EQ(all_faults().summary().find("ESCAPED"), std::string::npos);
  for (const char* layer : {"L0", "L1", "L3"}) {
    const std::string summary = all_faults().summary();
    const size_t at = summary.find(layer);
    ASSERT_NE(at, std::string::npos) << layer;
    EXPECT_NE(summary.substr(at, summary.find('\n', at) - at).find("(100.0 %)"), std::string::npos)
        << summary;
  }
}

// Also: no net of the checker is without a fault that only it is trusted to catch.
TEST(SelfTest, EveryNetIsNeeded) {
  const std::set<std::string> nets = all_faults().nets();
  for (const char* net : {"compare",
                          "trust",
                          "guards",
                          "inputs_unchanged",
                          "poison",
                          "determinism",
                          "graph",
                          "asynchrony",
                          "kernel",
                          "rejects",
                          "workspace",
                          "empty",
                          "dropped_outputs",
                          "relation:rows_alone",
                          "relation:unfused",
                          "exit code",
                          "suite",
                          "case",
                          "supervisor",
                          "journal",
                          "results",
                          "statistics",
                          "comparison",
                          "gradient",
                          "jacobian",
                          "differences"})
    EXPECT_TRUE(nets.count(net)) << net;
  for (const std::string& net : nets) EXPECT_FALSE(all_faults().complete(net)) << "without " << net;
}

TEST(SelfTest, PassesAsAWhole) {
  testing::internal::CaptureStdout();
  EXPECT_EQ(run_self_test(false), kPassed);
  const std::string printed = testing::internal::GetCapturedStdout();
  EXPECT_NE(printed.find("reported by"), std::string::npos);
  EXPECT_NE(printed.find("promised"), std::string::npos);
}

TEST(SelfTest, AnEscapeIsExitCodeSix) {
  KillMatrix matrix;
  plant_output_faults(matrix);
  testing::internal::CaptureStdout();
  EXPECT_EQ(conclude(matrix, {}, "", false), 0);
  EXPECT_EQ(conclude(matrix, {}, "compare", false), 6);
  EXPECT_NE(testing::internal::GetCapturedStdout().find("ESCAPED L0 one NaN in rms_norm.fwd"),
            std::string::npos);
}

TEST(KillMatrix, OnlyTheResponsibleNetCounts) {
  KillMatrix matrix;
  EXPECT_FALSE(matrix.complete()) << "nothing was planted";
  matrix.planted("L0", "fault", "here", {"guards"}, {{"guards", "poison"}, ""});
  EXPECT_TRUE(matrix.complete());
  EXPECT_FALSE(matrix.complete("guards"));
  matrix.planted("L0", "fault", "there", {"guards"}, {{"poison"}, ""});
  EXPECT_FALSE(matrix.complete());
  EXPECT_NE(matrix.summary().find("ESCAPED L0 fault in there"), std::string::npos);
}

TEST(KillMatrix, AFalseAlarmIsAFailure) {
  KillMatrix matrix;
  matrix.planted("L0", "fault", "here", {"guards"}, {{"guards"}, ""});
  matrix.clean("L0", "here", {});
  EXPECT_TRUE(matrix.complete());
  matrix.clean("L0", "there", {{"poison"}, "differs"});
  EXPECT_FALSE(matrix.complete());
  EXPECT_NE(matrix.summary().find("FALSE ALARM L0 in there"), std::string::npos);
}

TEST(KillMatrix, NetsAreNamedByWhatTheyJudge) {
  Result r;
  r.status = CaseStatus::failed;
  EXPECT_EQ(reported_by(r).nets, std::set<std::string>{"failed"}) << "a failure without a check";
  for (const char* name : {"y", "trust:y", "guards", "relation:rows_alone"}) {
    Check c;
    c.name = name;
    c.status = CaseStatus::failed;
    r.checks.push_back(c);
  }
  EXPECT_EQ(reported_by(r).nets,
            (std::set<std::string>{"compare", "trust", "guards", "relation:rows_alone"}));
}

}  // namespace
}  // namespace fla::harness
