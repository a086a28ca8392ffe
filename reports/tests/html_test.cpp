#include "reports/html.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

#include "reports/chart.h"
#include "reports/json.h"
#include "reports/tests/sample_results.h"

namespace fla::reports {
namespace {

using harness::Result;
using harness::RunResult;

bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

RunResult bench_run() {
  RunResult run = sample_run();
  Result smaller = sample_result();
  smaller.case_text = smaller.key = "rms_norm.bwd:M=1024,N=4096,x=bf16";
  smaller.metrics.bytes = 2.5e7;
  smaller.cold = sample_timing(20);
  run.cases.push_back(smaller);
  return run;
}

Peers sample_peers() {
  return {"NVIDIA H200 (132 SMs)",
          "2026-11-23",
          "median",
          {{"rms_norm", "liger", "bwd", "16384x4096", 211, 1900}}};
}

std::string embedded_json(const std::string& html) {
  const std::string opening = "<script type=\"application/json\" id=\"results-0\">";
  const size_t begin = html.find(opening) + opening.size();
  return html.substr(begin, html.find("</script>", begin) - begin);
}

TEST(Html, EqualInputGivesEqualBytes) {
  const Peers peers = sample_peers();
  EXPECT_EQ(html_page({bench_run()}, &peers), html_page({bench_run()}, &peers));
}

TEST(Html, EmbeddedJsonParsesBack) {
  RunResult run = bench_run();
  run.cases[1].reason = "</script><script>alert(1)</script><!--";
  const RunResult back = read_results(embedded_json(html_page({run}, nullptr)), "page");
  EXPECT_EQ(to_json(back), to_json(run));
}

TEST(Html, NeedsNoNetwork) {
  const Peers peers = sample_peers();
  const std::string html = html_page({bench_run()}, &peers);
  for (const char* part : {"http:", "https:", "src=", "@import", "url(", "<link", "//cdn"}) {
    EXPECT_FALSE(contains(html, part)) << part;
  }
  EXPECT_TRUE(contains(html, "default-src 'none'"));
  EXPECT_TRUE(contains(html, "prefers-color-scheme: dark"));
}

// The attack in every string of the record: none may reach the page as markup.
TEST(Html, EveryStringIsEscaped) {
  const std::string attack = "\"'><img src=x onerror=alert(1)>&\x01\xFF";
  Result r = sample_result();
  for (std::string* text : {&r.key, &r.case_text, &r.op, &r.direction, &r.tier, &r.name, &r.backend,
                            &r.reason, &r.repro, &r.cold.stop, &r.metrics.mix, &r.checks[0].name,
                            &r.checks[0].index, &r.checks[0].detail, &r.power.throttle_reasons[0]}) {
    *text = attack;
  }
  r.params = {{attack, attack}};
  RunResult run{sample_run_info(), {r}, 1};
  harness::RunInfo& i = run.run;
  for (std::string* text : {&i.id,          &i.started,       &i.finished,
                            &i.tool,        &i.version,       &i.git_sha,
                            &i.build_type,  &i.compiler,      &i.cuda,
                            &i.flags,       &i.architectures, &i.device_name,
                            &i.device_uuid, &i.driver,        &i.cpu,
                            &i.os,          &i.shard,         &i.seed_policy,
                            &i.argv[0],     &i.warnings[0],   &i.suites[0].first}) {
    *text = attack;
  }
  Peers peers{attack, attack, attack, {{attack, attack, attack, attack, 1, 1}}};
  const std::string html = html_page({run}, &peers);
  EXPECT_FALSE(contains(html, "<img"));
  EXPECT_FALSE(contains(html, "\x01"));
  EXPECT_FALSE(contains(html, "\xFF"));
  EXPECT_TRUE(contains(html, "&lt;img src=x"));
  EXPECT_EQ(read_results(embedded_json(html), "page").cases.size(), 1u);
}

TEST(Html, ShowsVerdictCasesPeersAndCharts) {
  const Peers peers = sample_peers();
  const std::string html = html_page({bench_run()}, &peers);
  EXPECT_TRUE(contains(html, "<h2 class=\"bad\">2 of 3 cases failed on NVIDIA H200 (gpu).</h2>"));
  EXPECT_TRUE(contains(html, "1.05x liger</td>")) << "211 us against our 200";
  EXPECT_TRUE(contains(html, "<code>fla-check rms_norm.bwd:M=16384,N=4096,x=bf16,seed=7</code>"));
  EXPECT_TRUE(contains(html, "Throughput against bytes moved"));
  EXPECT_TRUE(contains(html, "Roofline"));
  EXPECT_TRUE(contains(html, "rms_norm.bwd: time, cold"));
  EXPECT_TRUE(contains(html, "stacked bars"));
  EXPECT_TRUE(contains(html, "<details open>"));
}

TEST(Html, AnImpossibleShareIsDrawnAsAnError) {
  RunResult run = bench_run();
  EXPECT_FALSE(contains(html_page({run}, nullptr), "above the measured ceiling"));
  run.cases[1].metrics.sol = 1.2;
  const std::string html = html_page({run}, nullptr);
  EXPECT_TRUE(contains(html, "<g class=\"error\">"));
  EXPECT_TRUE(contains(html, "above the measured ceiling"));
}

TEST(Html, OfThousandsOfCasesOnlyFailedAndTimedOnesHaveDetails) {
  RunResult run = bench_run();
  harness::Result plain = run.cases[0];
  plain.timed = false;
  plain.status = harness::CaseStatus::passed;
  const auto details = [&] {
    const std::string html = html_page({run}, nullptr);
    size_t found = 0;
    for (size_t at = html.find("<summary>details"); at != std::string::npos; at = html.find("<summary>details", at + 1)) ++found;
    return found;
  };
  run.cases = {run.cases[0], run.cases[1]};  // timed, failed
  run.cases[0].timed = true;
  run.cases.insert(run.cases.end(), 100, plain);
  EXPECT_EQ(details(), 102u);
  run.cases.insert(run.cases.end(), 2000, plain);
  EXPECT_EQ(details(), 2u);
}

TEST(Html, SeveralRunsHaveDistinctAnchors) {
  const std::string html = html_page({sample_run(), sample_run()}, nullptr);
  EXPECT_TRUE(contains(html, "id=\"r0-c1\""));
  EXPECT_TRUE(contains(html, "id=\"r1-c1\""));
  EXPECT_TRUE(contains(html, "id=\"results-1\""));
}

TEST(Html, EmptyRunsMakeAPage) {
  EXPECT_TRUE(contains(html_page({RunResult{}}, nullptr), "Nothing ran."));
  EXPECT_TRUE(contains(html_page({}, nullptr), "</html>"));
}

TEST(Chart, ValuesThatCannotBeDrawnAreLeftOut) {
  const double nan = std::nan("");
  const double inf = std::numeric_limits<double>::infinity();
  Chart chart{"c", {"x", true}, {"y", true}, {{"s", {{nan, 1, ""}, {1, inf, ""}, {0, 1, ""}, {1, -1, ""}}}}};
  EXPECT_EQ(svg_chart(chart), "");
  chart.series[0].points.push_back({1, 1, "only"});
  const std::string svg = svg_chart(chart);
  EXPECT_TRUE(contains(svg, "only"));
  EXPECT_FALSE(contains(svg, "nan"));
  EXPECT_FALSE(contains(svg, "inf"));
  EXPECT_EQ(svg_strip({1, nan}), "");
  EXPECT_EQ(svg_bars({"a"}, {{"b", {0}, ""}}), "");
}

TEST(Chart, ExtremeRangesEnd) {
  const Chart wide{"c", {"x", true}, {"y", false}, {{"s", {{1e-300, 1e300, ""}, {1e300, 0, ""}}}}};
  EXPECT_LT(svg_chart(wide).size(), 200000u);
}

}  // namespace
}  // namespace fla::reports
