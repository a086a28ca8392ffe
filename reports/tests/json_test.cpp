#include "reports/json.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <tuple>

#include "reports/tests/sample_results.h"

namespace fla::reports {
namespace {

using namespace harness;

// The bindings name every member: a field added to a record breaks this file until it is compared as well.
auto members(const Check& r) {
  const auto& [a, b, c, d, e, f, g, h, i, j, k, l, m, n] = r;
  return std::tie(a, b, c, d, e, f, g, h, i, j, k, l, m, n);
}
auto members(const Timing& r) {
  const auto& [a, b, c, d, e, f, g, h, i] = r;
  return std::tie(a, b, c, d, e, f, g, h, i);
}
auto members(const Metrics& r) {
  const auto& [a, b, c, d, e, f, g, h, i, j, k] = r;
  return std::tie(a, b, c, d, e, f, g, h, i, j, k);
}
auto members(const Memory& r) {
  const auto& [a, b, c, d, e, f, g] = r;
  return std::tie(a, b, c, d, e, f, g);
}
auto members(const Power& r) {
  const auto& [a, b, c, d] = r;
  return std::tie(a, b, c, d);
}
auto members(const Result& r) {
  const auto& [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p, q, s, t, u] = r;
  return std::tie(a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p, q, s, t, u);
}
auto members(const Calibration::Mix& r) {
  const auto& [a, b, c, d, e] = r;
  return std::tie(a, b, c, d, e);
}
auto members(const Calibration& r) {
  const auto& [a, b, c, d, e] = r;
  return std::tie(a, b, c, d, e);
}
auto members(const RunInfo& r) {
  const auto& [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p, q, s, t, u, v, w, x, y, z, a1, b1, c1, d1,
               e1] = r;
  return std::tie(a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p, q, s, t, u, v, w, x, y, z, a1, b1, c1, d1,
                  e1);
}

template <class T>
concept Record = requires(const T& r) {
  members(r);
};

bool same(double a, double b) { return a == b || (std::isnan(a) && std::isnan(b)); }
template <class T>
bool same(const T& a, const T& b) {
  if constexpr (Record<T>) {
    const auto left = members(a), right = members(b);
    return [&]<size_t... i>(std::index_sequence<i...>) {
      return (same(std::get<i>(left), std::get<i>(right)) && ...);
    }
    (std::make_index_sequence<std::tuple_size_v<decltype(left)>>{});
  } else if constexpr (requires { requires Record<typename T::value_type>; }) {
    return std::equal(a.begin(), a.end(), b.begin(), b.end(), [](auto& x, auto& y) { return same(x, y); });
  } else {
    return a == b;
  }
}

// Through text, so that the spelling of numbers is part of it.
template <class T>
T round_trip(const T& record) {
  T back;
  from_json(parse_json(dump_json(to_json(record)), "test"), back);
  return back;
}

TEST(Json, EveryRecordSurvivesTheRoundTrip) {
  EXPECT_TRUE(same(sample_check(), round_trip(sample_check())));
  EXPECT_TRUE(same(sample_timing(71.25), round_trip(sample_timing(71.25))));
  const Result result = sample_result();
  EXPECT_TRUE(same(result.metrics, round_trip(result.metrics)));
  EXPECT_TRUE(same(result.memory, round_trip(result.memory)));
  EXPECT_TRUE(same(result.power, round_trip(result.power)));
  EXPECT_TRUE(same(result, round_trip(result)));
  const RunInfo info = sample_run_info();
  EXPECT_TRUE(same(info.calibration, round_trip(info.calibration)));
  EXPECT_TRUE(same(info, round_trip(info)));
}

TEST(Json, DefaultRecordsSurviveTheRoundTrip) {
  EXPECT_TRUE(same(Check{}, round_trip(Check{})));
  EXPECT_TRUE(same(Result{}, round_trip(Result{})));
  EXPECT_TRUE(same(RunInfo{}, round_trip(RunInfo{})));
}

TEST(Json, TheComparisonAboveSeesADifference) {
  Result other = sample_result();
  other.memory.device_growth += 1;
  EXPECT_FALSE(same(sample_result(), other));
}

TEST(Json, TheFileSurvivesTheRoundTrip) {
  const RunResult run = sample_run();
  const RunResult back = read_results(write_results(run), "test");
  EXPECT_TRUE(same(run.run, back.run));
  EXPECT_TRUE(same(run.cases, back.cases));
  EXPECT_EQ(run.exit_code, back.exit_code);
  EXPECT_EQ(parse_json(write_results(run), "test"), to_json(run));
}

TEST(Json, DocumentHasTheDocumentedShape) {
  const Json document = to_json(sample_run());
  EXPECT_EQ(document["schema"], "fla.results/1");
  EXPECT_EQ(document["run"]["build"]["archs"], "90a");
  EXPECT_EQ(document["run"]["suites"][0]["path"], "suites/rms_norm.json");
  EXPECT_EQ(document["run"]["calibration"]["mixes"][0]["cold"][1][1], 4241.0);
  const Json& failed = document["cases"][1];
  EXPECT_EQ(failed["checks"][0]["got"], "nan");
  EXPECT_EQ(failed["checks"][0]["bound_used"], "inf");
  EXPECT_EQ(failed["checks"][0]["expected"], "-inf");
  EXPECT_TRUE(failed["checks"][0]["elements"].is_number_integer());
  EXPECT_EQ(failed["time"]["cold"]["median_us"], 200.0);
  EXPECT_EQ(failed["params"]["M"], "16384");
  EXPECT_FALSE(document["cases"][0].contains("time"));
  EXPECT_EQ(document["summary"]["counts"]["failed"], 1);
}

std::string error_of(const std::string& text) {
  try {
    read_results(text, "r.json");
  } catch (const FormatError& e) {
    return e.what();
  }
  return "";
}

TEST(Json, RefusesOtherMajorVersionsAndFamilies) {
  EXPECT_NE(error_of(R"({"schema":"fla.results/2"})").find("version 2"), std::string::npos);
  EXPECT_NE(error_of(R"({"schema":"fla.results/10"})"), "");
  EXPECT_NE(error_of(R"({"schema":"fla.results/1x"})"), "");
  EXPECT_NE(error_of(R"({"schema":"fla.results/"})"), "");
  EXPECT_NE(error_of(R"({"schema":"other/1"})"), "");
  EXPECT_NE(error_of("{}"), "");
  EXPECT_EQ(error_of(R"({"schema":"fla.results/1.4"})"), "");
}

TEST(Json, IgnoresUnknownFields) {
  const char* text = R"({"schema":"fla.results/1","later":{"a":[1]},"run":{"moon":1},"cases":[{"x":1}]})";
  EXPECT_EQ(error_of(text), "");
}

TEST(Json, NamesThePlaceOfAWrongValue) {
  const std::string head = R"({"schema":"fla.results/1","cases":[{},)";
  EXPECT_EQ(error_of(head + R"({"status":"fine"}]})"), "r.json: /cases/1/status: unknown status");
  EXPECT_NE(error_of(head + R"({"seconds":"1"}]})").find("/cases/1/seconds"), std::string::npos);
  EXPECT_NE(error_of(head + R"({"memory":{"peak":1.5}}]})").find("/cases/1/memory/peak"), std::string::npos);
  const std::string huge = R"({"memory":{"peak":18446744073709551615}}]})";
  EXPECT_NE(error_of(head + huge).find("range"), std::string::npos);
  EXPECT_NE(error_of(head + R"([]]})").find("/cases/1: expected an object"), std::string::npos);
  EXPECT_NE(error_of(R"({"schema":"fla.results/1","run":{"device":{"sm":3000000000}}})").find("range"),
            std::string::npos);
}

TEST(Json, HostileTextIsAnErrorNotACrash) {
  EXPECT_NE(error_of(""), "");
  EXPECT_NE(error_of("{\"schema\":"), "");
  EXPECT_NE(error_of(std::string(100000, '[')).find("64 levels"), std::string::npos);
  EXPECT_THROW(load_results("/nonexistent/r.json"), FormatError);
  EXPECT_THROW(load_results("/tmp"), FormatError);
}

TEST(Json, BytesThatAreNotTextDoNotStopTheWriter) {
  Result r = sample_result();
  r.reason = "bad \xFF byte";
  EXPECT_EQ(round_trip(r).reason, "bad \xEF\xBF\xBD byte");
}

}  // namespace
}  // namespace fla::reports
