// Console, JUnit, annotations, CSV, Markdown.
#include <gtest/gtest.h>

#include "reports/annotations.h"
#include "reports/console.h"
#include "reports/csv.h"
#include "reports/junit.h"
#include "reports/markdown.h"
#include "reports/summary.h"
#include "reports/tests/sample_results.h"

namespace fla::reports {
namespace {

using harness::CaseStatus;
using harness::Result;
using harness::RunResult;

bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}
int count(const std::string& text, const std::string& part) {
  int found = 0;
  for (size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++found;
  return found;
}

Result with_status(CaseStatus status) {
  Result r = passed_result("a", std::string("a.fwd:M=") + harness::name_of(status));
  r.status = status;
  r.reason = "because";
  return r;
}

TEST(Numbers, ReadAsPeopleReadThem) {
  EXPECT_EQ(microseconds(1.234), "1.23");
  EXPECT_EQ(microseconds(71.06), "71.1");
  EXPECT_EQ(microseconds(1089.7), "1090");
  EXPECT_EQ(microseconds(std::nan("")), "nan");
  EXPECT_EQ(percent(0.951), "95.1 %");
  EXPECT_EQ(byte_count(1023), "1023 B");
  EXPECT_EQ(byte_count(1536), "1.50 KiB");
  EXPECT_EQ(byte_count(int64_t{150} << 30), "150.0 GiB");
  EXPECT_EQ(fixed(1e300, 2), "1e+300");
}

TEST(Tables, AlignByCharactersNotBytes) {
  const Table table{{{"name"}, {"n", true}}, {{"µs", "1"}, {"abcdef", "100"}, {"x"}}};
  EXPECT_EQ(aligned(table), "name      n\n------  ---\nµs        1\nabcdef  100\nx\n");
  EXPECT_EQ(markdown(table), "| name | n |\n| --- | ---: |\n| µs | 1 |\n| abcdef | 100 |\n| x |  |\n");
}

TEST(Summary, CountsByOperatorAndBackend) {
  RunResult run;
  run.cases = {with_status(CaseStatus::passed), with_status(CaseStatus::failed),
               with_status(CaseStatus::skipped)};
  run.cases.push_back(with_status(CaseStatus::passed));
  run.cases.back().backend = "emulator";
  run.cases[1].checks[0].bound_used = std::nan("");
  const auto summaries = summarise_operators(run, nullptr);
  ASSERT_EQ(summaries.size(), 2u);
  EXPECT_EQ(summaries[0].cases, 3);
  EXPECT_EQ(summaries[0].passed, 1);
  EXPECT_EQ(summaries[0].failed, 1);
  EXPECT_EQ(summaries[0].not_run, 1);
  EXPECT_DOUBLE_EQ(summaries[0].seconds, 0.75);
  EXPECT_TRUE(std::isnan(summaries[0].worst_bound_used)) << "NaN is the worst";
  EXPECT_EQ(summaries[1].backend, "emulator");
}

TEST(Summary, VerdictSentence) {
  RunResult run;
  run.run.device_name = "NVIDIA H200";
  EXPECT_EQ(verdict_sentence(run), "Nothing ran.");
  run.cases = {with_status(CaseStatus::skipped)};
  EXPECT_EQ(verdict_sentence(run), "Nothing ran; 1 skipped.");
  run.cases.push_back(with_status(CaseStatus::passed));
  run.cases.push_back(with_status(CaseStatus::passed));
  EXPECT_EQ(verdict_sentence(run), "All 2 cases passed on NVIDIA H200 (gpu); 1 skipped.");
  run.cases.push_back(with_status(CaseStatus::crashed));
  EXPECT_EQ(verdict_sentence(run), "1 of 3 cases failed on NVIDIA H200 (gpu); 1 skipped.");
}

TEST(Summary, WarnsInWords) {
  RunResult run = sample_run();
  run.cases[1].metrics.sol = 1.1;
  run.cases[0].backend = "emulator";
  Peers peers;
  peers.device = "NVIDIA A100";
  std::string all;
  for (const std::string& warning : warnings_in_words(run, &peers)) all += warning + "\n";
  EXPECT_TRUE(contains(all, "clocks are not locked"));
  EXPECT_TRUE(contains(all, "uncommitted"));
  EXPECT_TRUE(contains(all, "Clocks fell during the measurement in 1 of 2 cases."));
  EXPECT_TRUE(contains(all, "\"power cap\""));
  EXPECT_TRUE(contains(all, "Faster than the measured ceiling"));
  EXPECT_TRUE(contains(all, "ran the kernel sources on the CPU"));
  EXPECT_TRUE(contains(all, "another device: NVIDIA A100"));
}

TEST(Console, CheckReportNamesFailuresWithTheirCommand) {
  const std::string text = check_report(sample_run(), false);
  EXPECT_TRUE(
      contains(text, "failed  rms_norm.bwd:M=16384,N=4096,x=bf16,seed=7 [gpu]: y: 2 elements outside"));
  EXPECT_TRUE(contains(text, "\n    fla-check rms_norm.bwd:M=16384,N=4096,x=bf16,seed=7\n"));
  EXPECT_TRUE(contains(text, "rms_norm.bwd  gpu"));
  EXPECT_TRUE(contains(text, "slowest cases\n  1.50 s  rms_norm.bwd"));
  EXPECT_FALSE(contains(text, "\033"));
  EXPECT_TRUE(contains(check_report(sample_run(), true), "\033[31mfailed\033[0m"));
}

TEST(Console, BenchReportShowsTheNumbers) {
  const std::string text = bench_report(sample_run(), nullptr, false);
  EXPECT_TRUE(contains(text, "M=16384 N=4096 x=bf16 (llama3-8b)"));
  for (const char* number : {"200", "1990", "90.0", "180", "2.50"})
    EXPECT_TRUE(contains(text, number)) << number;
}

TEST(Console, HostileTextCannotDriveTheTerminal) {
  RunResult run = sample_run();
  run.cases[1].reason = "\033]0;owned\007\nfake line";
  const std::string text = check_report(run, false);
  EXPECT_FALSE(contains(text, "\033"));
  EXPECT_FALSE(contains(text, "\nfake line"));
}

TEST(Console, ColourNeedsATerminal) { EXPECT_FALSE(wants_colour(-1)); }

TEST(Junit, OutcomesAndCounts) {
  RunResult run;
  run.run.tool = "fla-check";
  for (const CaseStatus status :
       {CaseStatus::passed, CaseStatus::failed, CaseStatus::mistrusted, CaseStatus::crashed,
        CaseStatus::timeout, CaseStatus::skipped, CaseStatus::listed}) {
    run.cases.push_back(with_status(status));
  }
  const std::string xml = junit_xml(run);
  EXPECT_TRUE(contains(xml, "tests=\"7\" failures=\"2\" errors=\"2\" skipped=\"2\""));
  EXPECT_EQ(count(xml, "<testcase "), 7);
  EXPECT_EQ(count(xml, "<failure "), 2);
  EXPECT_EQ(count(xml, "<error "), 2);
  EXPECT_EQ(count(xml, "<skipped "), 2);
}

TEST(Junit, IsWellFormedWhateverTheTextIs) {
  RunResult run = sample_run();
  run.cases[1].reason = "a<b & \"c\"\x01\xFF\nd";
  const std::string xml = junit_xml(run);
  EXPECT_TRUE(contains(xml, "message=\"a&lt;b &amp; &quot;c&quot;\xEF\xBF\xBD\xEF\xBF\xBD d\""));
  EXPECT_FALSE(contains(xml, "\x01"));
  EXPECT_TRUE(contains(xml, "y failed at [3,0,17]: got nan, expected -inf within 1e-300"));
}

TEST(Annotations, OneLinePerFailure) {
  EXPECT_EQ(github_annotations(sample_run()),
            "::error title=failed rms_norm.bwd%3AM=16384%2CN=4096%2Cx=bf16%2Cseed=7::y: 2 elements outside "
            "the bound"
            "%0Afla-check rms_norm.bwd:M=16384,N=4096,x=bf16,seed=7\n");
}

TEST(Annotations, StayUnderTheLimitAndCountTheRest) {
  RunResult run;
  for (int i = 0; i < 25; ++i) run.cases.push_back(with_status(CaseStatus::failed));
  const std::string text = github_annotations(run);
  EXPECT_EQ(count(text, "\n"), 10);
  EXPECT_TRUE(contains(text, "16 more cases failed"));
}

TEST(Csv, ALinePerCaseWithEqualCells) {
  const std::string text = csv_table(sample_run(), nullptr);
  EXPECT_EQ(count(text, "\n"), 3);
  const std::string head = text.substr(0, text.find('\n'));
  const std::string line = text.substr(head.size() + 1, text.find('\n', head.size() + 1) - head.size() - 1);
  // The case string holds one comma, and is quoted for it.
  EXPECT_EQ(line.rfind("\"swiglu.fwd:M=2,F=3\",swiglu,fwd,", 0), 0u);
  EXPECT_EQ(count(line, ",") - 1, count(head, ","));
}

TEST(Markdown, EscapesWhatItShows) {
  RunResult run = sample_run();
  run.cases[1].reason = "a|b <img src=x>\n# title";
  const std::string text = markdown_report(run, nullptr);
  EXPECT_TRUE(contains(text, "a\\|b &lt;img src=x> # title"));
  EXPECT_TRUE(contains(text, "\n      fla-check rms_norm.bwd"));
  EXPECT_TRUE(contains(text, "| time us |"));
}

}  // namespace
}  // namespace fla::reports
