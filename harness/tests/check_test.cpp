#include <gtest/gtest.h>

#include <algorithm>

#include "harness/tests/row_scale.h"
#include "harness/host_device.h"
#include "harness/check.h"

namespace fla::harness {
namespace {

Result checked(const std::string& planted, std::map<std::string, std::string> values = {}) {
  values.insert({{"M", "12"}, {"N", "24"}});
  HostDevice device;
  const WithFault fault(planted);
  Result r = check_case(row_scale_case(values), device, {});
  EXPECT_EQ(device.live, 0) << "device memory was not released";
  return r;
}

const Check* find(const Result& r, const std::string& name) {
  const auto at =
      std::find_if(r.checks.begin(), r.checks.end(), [&](const Check& c) { return c.name == name; });
  return at == r.checks.end() ? nullptr : &*at;
}

std::string failures(const Result& r) {
  std::string names;
  for (const Check& c : r.checks)
    if (c.status != CaseStatus::passed) names += c.name + " (" + c.detail + "); ";
  return names;
}

TEST(Check, PassesARightKernel) {
  for (const char* dtype : {"f32", "bf16"}) {
    const Result r = checked("", {{"x", dtype}});
    EXPECT_EQ(r.status, CaseStatus::passed) << failures(r);
    for (const char* name :
         {"y", "total", "guards", "inputs_unchanged", "poison", "workspace", "determinism", "asynchrony",
          "graph", "dropped_outputs", "empty", "rejects", "relation:rows_alone"})
      EXPECT_TRUE(find(r, name)) << name;
    EXPECT_GT(find(r, "rejects")->elements, 50);
    EXPECT_EQ(find(r, "empty")->elements, 2);
    EXPECT_EQ(find(r, "dropped_outputs")->elements, 1);
    EXPECT_EQ(r.memory.workspace, 48);
    EXPECT_EQ(r.memory.workspace_touched, 48);
    EXPECT_EQ(r.backend, "gpu");
  }
}

TEST(Check, PassesStridedShiftedAliasedAndEmptyCases) {
  for (const std::map<std::string, std::string>& values :
       {std::map<std::string, std::string>{{"x.pad", "8"}, {"y.pad", "3"}, {"x.shift", "1"}},
        {{"y.alias", "1"}},
        {{"M", "0"}},
        {{"weight", "none"}},
        {{"total", "none"}}}) {
    const Result r = checked("", values);
    EXPECT_EQ(r.status, CaseStatus::passed) << r.case_text << ": " << failures(r);
  }
}

struct Planted {
  const char *fault, *check;
  std::map<std::string, std::string> values = {};
};

// Names a case to GoogleTest, which would print its bytes.
void PrintTo(const Planted& p, std::ostream* out) {
  *out << p.fault << ", seen by " << p.check;
}

class PlantedFault : public testing::TestWithParam<Planted> {};

TEST_P(PlantedFault, FailsTheNamedCheck) {
  const Result r = checked(GetParam().fault, GetParam().values);
  EXPECT_EQ(r.status, CaseStatus::failed);
  const Check* c = find(r, GetParam().check);
  ASSERT_TRUE(c) << failures(r);
  EXPECT_EQ(c->status, CaseStatus::failed) << failures(r);
  EXPECT_FALSE(c->detail.empty());
  EXPECT_FALSE(r.reason.empty());
}

INSTANTIATE_TEST_SUITE_P(
    Each, PlantedFault,
    testing::Values(
        Planted{"writes NaN", "y"}, Planted{"one element wrong", "y"}, Planted{"last element missing", "y"},
        Planted{"last element missing", "poison"}, Planted{"truncates", "y", {{"x", "bf16"}}},
        Planted{"one past the end", "guards"}, Planted{"into the gap", "guards", {{"y.pad", "4"}}},
        Planted{"changes its input", "inputs_unchanged"}, Planted{"adds to what was there", "y"},
        Planted{"uninitialised workspace", "poison"}, Planted{"ignores workspace size", "workspace"},
        Planted{"differs every third call", "determinism"},
        Planted{"depends on an optional output", "dropped_outputs"}, Planted{"refuses empty", "empty"},
        Planted{"names nothing", "rejects"}, Planted{"accepts bad arguments", "rejects"},
        Planted{"depends on the batch", "relation:rows_alone"}, Planted{"throws", "kernel"}));

TEST(Check, ReportsWhereAnElementIsWrong) {
  const Result r = checked("one element wrong");
  const Check* c = find(r, "y");
  ASSERT_TRUE(c);
  EXPECT_EQ(c->index, "[6,12]");
  EXPECT_EQ(c->outside, 1);
  EXPECT_NEAR(c->got, -c->expected, 1e-6);
}

TEST(Check, ReportsAWaitingCall) {
  HostDevice device;
  device.blocks = false;
  const Result r = check_case(row_scale_case({{"M", "4"}, {"N", "8"}}), device, {});
  ASSERT_TRUE(find(r, "asynchrony"));
  EXPECT_EQ(find(r, "asynchrony")->status, CaseStatus::failed);
}

TEST(Check, RefusalOfAGoodCaseIsRejected) {
  HostDevice device;
  const WithFault fault("refuses empty");
  const Result r = check_case(row_scale_case({{"M", "0"}, {"N", "8"}}), device, {});
  EXPECT_EQ(r.status, CaseStatus::rejected);
  EXPECT_NE(r.reason.find("too small"), std::string::npos);
}

TEST(Check, SaysWhatDoesNotFit) {
  HostDevice device;
  device.free = 100000;
  try {
    check_case(row_scale_case({{"M", "1000"}, {"N", "100"}}), device, {});
    FAIL() << "ran without memory";
  } catch (const OutOfMemory& e) {
    EXPECT_EQ(e.free, 100000u);
    EXPECT_GT(e.need, 800000u);
  }
  EXPECT_EQ(device.live, 0);
}

TEST(Check, AFailedAllocationLeaksNothing) {
  bool finished = false;
  for (int64_t k = 0; !finished; ++k) {
    HostDevice device;
    device.fail_at = k;
    try {
      EXPECT_EQ(check_case(row_scale_case({{"M", "4"}, {"N", "8"}}), device, {}).status, CaseStatus::passed);
      finished = true;
    } catch (const OutOfMemory&) {
    }
    EXPECT_EQ(device.live, 0) << "after allocation " << k << " failed";
    ASSERT_LT(k, 1000);
  }
}

TEST(Check, TheEmulatorClaimsNothingAboutStreams) {
  HostDevice device;
  device.name = "emulator";
  const Result r = check_case(row_scale_case({{"M", "4"}, {"N", "8"}}), device, {});
  EXPECT_EQ(r.status, CaseStatus::passed) << failures(r);
  EXPECT_TRUE(find(r, "determinism"));
  EXPECT_FALSE(find(r, "asynchrony"));
}

TEST(Check, MistrustsAnswersThatProveNothing) {
  const Result r = checked("", {{"scale", "0"}});
  EXPECT_EQ(r.status, CaseStatus::mistrusted) << failures(r);
  EXPECT_TRUE(find(r, "trust:y"));
}

TEST(Check, OptionsTurnExtrasOff) {
  HostDevice device;
  const CheckOptions plain{.determinism = false, .rejects = false, .extras = false, .repeat = 3};
  const Result r = check_case(row_scale_case({{"M", "4"}, {"N", "8"}}), device, plain);
  EXPECT_EQ(r.status, CaseStatus::passed) << failures(r);
  EXPECT_TRUE(find(r, "poison"));
  EXPECT_TRUE(find(r, "repeat"));
  for (const char* name : {"determinism", "rejects", "empty", "graph", "workspace"})
    EXPECT_FALSE(find(r, name)) << name;
}

}  // namespace
}  // namespace fla::harness
