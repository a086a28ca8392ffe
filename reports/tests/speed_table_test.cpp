#include "reports/speed_table.h"

#include <gtest/gtest.h>

#include "reports/json.h"

namespace fla::reports {
namespace {

using harness::Result;
using Params = std::vector<std::pair<std::string, std::string>>;

Result timed(const std::string& op, const std::string& direction, Params params, double us) {
  Result r;
  r.op = op;
  r.direction = direction;
  r.params = std::move(params);
  r.backend = "gpu";
  r.status = harness::CaseStatus::passed;
  r.timed = true;
  r.cold.median_us = us;
  r.metrics.sol = 0.5;
  return r;
}

TEST(SpeedTable, PutsBackwardBesideTheFirstForwardOfAnOperator) {
  const Params rows{{"M", "16384"}, {"F", "14336"}, {"x", "bf16"}}, others{{"M", "1"}, {"F", "8"}, {"x", "bf16"}};
  const Params same{{"x", "bf16"}, {"M", "16384"}, {"F", "14336"}};
  harness::RunResult run;
  run.cases = {timed("swiglu", "fwd", rows, 322),  timed("swiglu", "fwd", others, 7), timed("swiglu", "bwd", others, 8),
               timed("swiglu", "bwd", same, 544),  timed("conv", "update", others, 3), timed("glu", "fwd", rows, 9),
               timed("glu", "bwd", rows, 10)};
  run.cases[5].status = harness::CaseStatus::failed;
  const Peers peers{.device = "", .date = "", .method = "", .rows = {{"swiglu", "fla", "fwd", "16384x14336", 487}}};
  EXPECT_EQ(speed_table({run}, &peers),
            "| operator | case | µs | of the ceiling | backward µs | of the ceiling | fastest other, µs | backward |\n"
            "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |\n"
            "| swiglu | M=16384 F=14336 x=bf16 | 322 | 50.0 % | 544 | 50.0 % | 487 fla |  |\n"
            "| conv.update | M=1 F=8 x=bf16 | 3.00 | 50.0 % |  |  |  |  |\n"
            "| glu | M=16384 F=14336 x=bf16 |  |  | 10.0 | 50.0 % |  |  |\n");
}

TEST(SpeedTable, ReplacesWhatStandsBetweenTwoComments) {
  const std::string text = "a\n<!-- x:begin -->\nold\n<!-- x:end -->\nb\n";
  EXPECT_EQ(with_block(text, "x", "new\n"), "a\n<!-- x:begin -->\nnew\n<!-- x:end -->\nb\n");
  EXPECT_THROW(with_block(text, "y", ""), FormatError);
  EXPECT_THROW(with_block(text + text, "x", ""), FormatError);
  EXPECT_THROW(with_block("<!-- x:end -->\n<!-- x:begin -->\n", "x", ""), FormatError);
}

}  // namespace
}  // namespace fla::reports
