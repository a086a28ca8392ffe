#include "harness/suite.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <set>

namespace fla::harness {
namespace {

class SuiteFile : public ::testing::Test {
 protected:
  SuiteFile() : folder_(std::filesystem::temp_directory_path() / ("fla_suite_" + std::to_string(getpid()))) {
    std::filesystem::create_directories(folder_);
  }
  ~SuiteFile() override { std::filesystem::remove_all(folder_); }

  std::string write(const std::string& text, const std::string& name = "one.json") const {
    std::ofstream(folder_ / name, std::ios::binary) << text;
    return (folder_ / name).string();
  }
  static std::string suite(const std::string& entries) {
    return R"({"schema": 1, "operator": "swiglu", "cases": [)" + entries + "]}";
  }
  std::vector<std::string> texts(const std::string& entries, const std::string& tier = "smoke") const {
    std::vector<std::string> all;
    for (const Case& c : load_suites(write(suite(entries)), tier).cases) all.push_back(c.text());
    return all;
  }
  void expect_refused(const std::string& text, const std::string& place, const std::string& because) const {
    try {
      load_suites(write(text), "smoke");
      ADD_FAILURE() << text << " was taken";
    } catch (const UsageError& e) {
      EXPECT_NE(e.where.find(place), std::string::npos) << e.what();
      EXPECT_NE(e.full.find(because), std::string::npos) << e.what();
      EXPECT_EQ(e.where.rfind((folder_ / "one.json").string(), 0), 0u) << e.what();
      EXPECT_EQ(e.full.find('\n'), std::string::npos);
    }
  }

  std::filesystem::path folder_;
};

TEST_F(SuiteFile, ExpandsProducts) {
  const auto all = texts(R"({"tier": "smoke", "direction": ["fwd", "bwd"],  // comments are welcome
      "product": {"M": [1, 2], "F": "2^3..2^4", "x": ["bf16"]}, "set": {"fill": "exact"}})");
  ASSERT_EQ(all.size(), 8u);
  EXPECT_EQ(all[0], "swiglu.fwd:M=1,F=8,x=bf16,fill=exact");
  EXPECT_EQ(all[7], "swiglu.bwd:M=2,F=16,x=bf16,fill=exact");
}

TEST_F(SuiteFile, SiblingsShareTheirCases) {
  const std::string text = R"({"schema": 1, "operator": ["swiglu", "geglu"], "cases": [
      {"tier": "smoke", "direction": "fwd", "product": {"M": [1], "F": [8]}},
      {"tier": "smoke", "operator": "geglu", "direction": "bwd", "product": {"M": [1], "F": [8]}}]})";
  std::vector<std::string> all;
  for (const Case& c : load_suites(write(text), "smoke").cases) all.push_back(c.text());
  EXPECT_EQ(all, (std::vector<std::string>{"swiglu.fwd:M=1,F=8", "geglu.fwd:M=1,F=8", "geglu.bwd:M=1,F=8"}));
  expect_refused(suite(R"({"tier": "smoke", "operator": "geglu", "direction": "fwd", "product": {"M": [1], "F": [8]}})"),
                 "#/cases/0/operator", "geglu is not of swiglu");
}

TEST_F(SuiteFile, ZipsListsOfOneLength) {
  const auto all = texts(R"({"tier": "smoke", "direction": "fwd", "zip": {"M": [1, 2], "F": [8, 9]}})");
  EXPECT_EQ(all, (std::vector<std::string>{"swiglu.fwd:M=1,F=8", "swiglu.fwd:M=2,F=9"}));
}

TEST_F(SuiteFile, PairwiseMeetsEveryPairWithFewRows) {
  const char* entry = R"({"tier": "smoke", "direction": "fwd", "pairwise":
      {"M": [1, 2, 3, 4], "F": [8, 9, 10, 11], "x": ["f16", "bf16"], "y": ["f16", "bf16"], "x.pad": [1, 2, 3]}})";
  const auto all = texts(entry);
  EXPECT_GE(all.size(), 16u);
  EXPECT_LE(all.size(), 24u);  // the product has 192
  std::set<std::string> pairs;
  for (const std::string& text : all) {
    const Case c = parse_case(text);
    for (const auto& a : c.values)
      for (const auto& b : c.values)
        if (a.first < b.first) pairs.insert(a.first + a.second + b.first + b.second);
  }
  for (const char* pair : {"F8M1", "F11M4", "F9x.pad3", "M3xf16", "M2x.pad1"})
    EXPECT_TRUE(pairs.count(pair)) << pair;
  EXPECT_EQ(std::count_if(pairs.begin(), pairs.end(),
                          [](const std::string& p) { return p[0] == 'F' && p.find('M') != p.npos; }),
            16);
  EXPECT_EQ(texts(entry), all);
}

TEST_F(SuiteFile, TiersNest) {
  const char* entries =
      R"({"tier": "smoke", "case": "swiglu.fwd:M=1,F=1"}, {"tier": "ci", "case": "swiglu.fwd:M=2,F=1"},
      {"tier": "regression", "case": "swiglu.fwd:M=3,F=1"}, {"tier": "full", "case": "swiglu.fwd:M=4,F=1"},
      {"tier": "nightly", "case": "swiglu.fwd:M=5,F=1"}, {"tier": "bench", "name": "big", "case": "swiglu.fwd:M=6,F=1"})";
  EXPECT_EQ(texts(entries, "smoke").size(), 1u);
  EXPECT_EQ(texts(entries, "ci").size(), 3u);
  EXPECT_EQ(texts(entries, "full").size(), 4u);
  EXPECT_EQ(texts(entries, "nightly").size(), 5u);
  EXPECT_EQ(texts(entries, "regression").size(), 1u);
  const std::vector<Case> bench = load_suites(write(suite(entries)), "bench").cases;
  ASSERT_EQ(bench.size(), 1u);
  EXPECT_EQ(bench[0].name, "big");
  EXPECT_EQ(bench[0].tier, "bench");
  EXPECT_THROW(texts(entries, "smok"), UsageError);
}

TEST_F(SuiteFile, ErrorsCarryFileAndPointer) {
  const auto entry = [&](const std::string& text) {
    return suite(R"({"tier": "smoke", "case": "swiglu.fwd:M=9,F=9"}, )" + text);
  };
  expect_refused(entry(R"({"tier": "smoke", "direction": "fwd", "produkt": {"M": [1]}})"),
                 "#/cases/1/produkt", "did you mean product?");
  expect_refused(entry(R"({"tier": "smok", "direction": "fwd", "product": {"M": [1]}})"), "#/cases/1/tier",
                 "unknown tier");
  expect_refused(entry(R"({"tier": "smoke", "direction": "fwd", "product": {"M": []}})"),
                 "#/cases/1/product/M", "empty");
  expect_refused(entry(R"({"tier": "smoke", "direction": "fwd", "product": {"M": [1, null]}})"),
                 "#/cases/1/product/M/1", "neither");
  expect_refused(entry(R"({"tier": "smoke", "direction": "fwd", "zip": {"M": [1], "F": [1, 2]}})"),
                 "#/cases/1/zip/F", "equally long");
  expect_refused(entry(R"({"tier": "smoke", "direction": "fwd", "product": {"M": [1], "Q": [1]}})"),
                 "#/cases/1", "unknown key \"Q\"");
  expect_refused(entry(R"({"tier": "smoke", "direction": "fwd", "product": {"M": [1]}})"), "#/cases/1",
                 "dimension F is not given");
  expect_refused(entry(R"({"tier": "smoke", "direction": "up", "product": {"M": [1], "F": [1]}})"),
                 "#/cases/1/direction", "swiglu.up");
  expect_refused(entry(R"({"tier": "smoke", "case": "rms_norm.fwd:M=1,N=1"})"), "#/cases/1/case",
                 "is not of swiglu");
  expect_refused(entry(R"({"tier": "smoke", "case": "swiglu.fwd:M=9,F=9,x=f32"})"), "#/cases/1",
                 "stands twice");
  expect_refused(entry(R"({"tier": "smoke", "direction": "fwd", "product": {"M": ["1..3:0"]}})"),
                 "#/cases/1/product/M", "1..3:0");
  expect_refused(R"({"schema": 2, "operator": "swiglu", "cases": [1]})", "#/schema", "must be 1");
  expect_refused(R"({"schema": 1, "operator": "swiglu", "cases": []})", "#/cases", "not a list");
  expect_refused(R"({"schema": 1, "operator": "swiglu", "cases": [], "extra": 1})", "#/extra", "unknown key");
}

TEST_F(SuiteFile, RefusesAKeyGivenTwiceAnywhere) {
  expect_refused(
      suite(R"({"tier": "smoke", "case": "swiglu.fwd:M=1,F=1"}, {"tier": "smoke", "direction": ["fwd"],
      "product": {"M": [1], "F": [1], "M": [2]}})"),
      "#/cases/1/product/M", "twice");
  expect_refused(R"({"schema": 1, "schema": 1})", "#/schema", "twice");
}

TEST_F(SuiteFile, RefusesHostileFiles) {
  expect_refused("", "", "parse error");
  expect_refused("[1, 2", "", "parse error");
  expect_refused("[1]", "", "not an object");
  expect_refused(suite("1"), "#/cases/0", "not an object");
  expect_refused(std::string(100000, '['), "", "deeper than 64");
  expect_refused(R"({"schema": 1, "operator": "swiglu", "cases": [)" + std::string(17 << 20, ' ') + "]}", "",
                 "larger than 16 MiB");
  expect_refused(std::string("{\"a\0b\": 1}", 10), "", "parse error");
  EXPECT_THROW(load_suites((folder_ / "none.json").string(), "smoke"), UsageError);
  std::filesystem::create_directories(folder_ / "empty");
  EXPECT_THROW(load_suites((folder_ / "empty").string(), "smoke"), UsageError);
}

TEST_F(SuiteFile, AFolderIsReadInOrderAndHashedByContent) {
  write(suite(R"({"tier": "smoke", "case": "swiglu.fwd:M=2,F=1"})"), "b.json");
  write(suite(R"({"tier": "smoke", "case": "swiglu.fwd:M=1,F=1"})"), "a.json");
  write("not read", "c.txt");
  const Suites suites = load_suites(folder_.string(), "smoke");
  ASSERT_EQ(suites.sources.size(), 2u);
  EXPECT_NE(suites.sources[0].second, suites.sources[1].second);
  EXPECT_EQ(suites.sources[0].second.size(), 16u);
  EXPECT_EQ(suites.cases[0].text(), "swiglu.fwd:M=1,F=1");
}

TEST(Values, ExpandRangesAndRefuseNonsense) {
  EXPECT_EQ(expand_values("2^1..2^3", ""), (std::vector<std::string>{"2", "4", "8"}));
  EXPECT_EQ(expand_values("64..256:64", ""), (std::vector<std::string>{"64", "128", "192", "256"}));
  EXPECT_EQ(expand_values("1,3..4,f32", ""), (std::vector<std::string>{"1", "3", "4", "f32"}));
  for (const char* text : {"", "1,,2", "4..1", "1..9:0", "a..b", "2^1..2^99", "0..99999999"})
    EXPECT_THROW(expand_values(text, "there"), UsageError) << text;
}

std::vector<std::string> filtered(const std::vector<std::string>& globs) {
  std::vector<Case> cases;
  for (const char* text : {"swiglu.fwd:M=1,F=8", "swiglu.bwd:M=1,F=8", "rms_norm.fwd:M=1,N=8,x=bf16"})
    cases.push_back(parse_case(text));
  filter_cases(cases, globs);
  std::vector<std::string> left;
  for (const Case& c : cases) left.push_back(c.direction->key());
  return left;
}

TEST(Filter, GlobsSelectAndExclude) {
  EXPECT_EQ(filtered({}).size(), 3u);
  EXPECT_EQ(filtered({"swiglu*"}), (std::vector<std::string>{"swiglu.fwd", "swiglu.bwd"}));
  EXPECT_EQ(filtered({"*.?wd:*", "-swiglu.b*"}), (std::vector<std::string>{"swiglu.fwd", "rms_norm.fwd"}));
  EXPECT_EQ(filtered({"-*bf16*"}).size(), 2u);
  EXPECT_TRUE(filtered({"swiglu"}).empty());  // the whole string, not a part
}

TEST(Axes, ReplaceAKeyWhereverItStands) {
  std::vector<Case> cases = {parse_case("swiglu.fwd:M=1,F=8"), parse_case("rms_norm.fwd:M=1,N=8")};
  override_axes(cases, {"F=16,32"});
  ASSERT_EQ(cases.size(), 3u);
  EXPECT_EQ(cases[0].text(), "swiglu.fwd:M=1,F=16");
  EXPECT_EQ(cases[2].text(), "rms_norm.fwd:M=1,N=8");
  EXPECT_THROW(override_axes(cases, {"Q=1"}), UsageError);
  EXPECT_THROW(override_axes(cases, {"F"}), UsageError);
  EXPECT_THROW(override_axes(cases, {"F=many"}), UsageError);
}

}  // namespace
}  // namespace fla::harness
