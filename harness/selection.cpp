#include "harness/selection.h"

#include <CLI/CLI.hpp>
#include <charconv>
#include <filesystem>
#include <map>
#include <random>
#include <set>

#include "harness/problem.h"
#include "harness/suite.h"
#include "harness/worker_process.h"

#ifndef FLA_SUITES_DIR
#define FLA_SUITES_DIR ""
#endif

namespace fla::harness {
namespace {

uint64_t number(const std::string& text, const std::string& option) {
  uint64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || text.empty())
    throw UsageError(option, "'" + text + "' is not a number it takes");
  return value;
}

uint64_t fnv1a(const std::string& text) {
  uint64_t hash = 0xcbf29ce484222325;
  for (const char c : text) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3;
  return hash;
}

// The same case with another seed.
Case reseeded(const Case& c, const std::string& seed) {
  std::map<std::string, std::string> values(c.values.begin(), c.values.end());
  values["seed"] = seed;
  Case changed = make_case(*c.direction, values, "--seed");
  changed.name = c.name;
  changed.tier = c.tier;
  return changed;
}

std::string choose_seed(const std::string& wanted, SelectedCases& selected) {
  selected.seed_policy = wanted.empty() ? "hash of the case" : wanted;
  if (wanted != "random") {
    if (!wanted.empty()) number(wanted, "--seed");
    return wanted;
  }
  const std::string drawn = std::to_string(std::random_device()());
  selected.seed_policy = "random: " + drawn;
  return drawn;
}

// Suites by their own names: results say nothing about where a checkout lies.
std::string relative_name(const std::string& path) {
  const std::filesystem::path p(path);
  return (p.parent_path().filename() / p.filename()).string();
}

}  // namespace

void add_selection_options(CLI::App& app, Selection& s) {
  app.add_option("CASE", s.cases,
                 "Case strings, rms_norm.bwd:M=16384,N=4096,x=bf16; without any: the suites");
  app.add_option("--suite", s.suite, "Suite file or folder of them (default: the suites of this build)");
  app.add_option("--tier", s.tier, "smoke, ci, full, nightly, exhaustive, regression or bench")->capture_default_str();
  app.add_option("--filter", s.filters,
                 "Keep cases that match this glob; --filter=-GLOB drops them; repeatable")
      ->allow_extra_args(false);
  app.add_option("--axis", s.axes,
                 "Replace a key in every case that has it: M=1,2 or M=2^10..2^16; repeatable")
      ->allow_extra_args(false);
  app.add_option("--seed", s.seed, "Seed of the data, a number or 'random' (default: a hash of the case)");
  app.add_option("--shard", s.shard, "The i-th of n parts of the selection, i/n from 1/n to n/n");
}

std::string default_suites() {
  namespace fs = std::filesystem;
  const std::string built = FLA_SUITES_DIR;
  std::error_code ignored;
  if (!built.empty() && fs::is_directory(built, ignored)) return built;
  return (fs::path(own_executable()).parent_path().parent_path() / "share/fla/suites").string();
}

bool in_shard(const std::string& key, const std::string& shard) {
  if (shard.empty()) return true;
  const size_t slash = shard.find('/');
  if (slash == std::string::npos) throw UsageError("--shard", "'" + shard + "' is not i/n");
  const uint64_t i = number(shard.substr(0, slash), "--shard"),
                 n = number(shard.substr(slash + 1), "--shard");
  if (i < 1 || i > n) throw UsageError("--shard", "'" + shard + "' is not between 1/n and n/n");
  return fnv1a(key) % n == i - 1;
}

SelectedCases select_cases(const Selection& wanted) {
  SelectedCases selected;
  const std::string seed = choose_seed(wanted.seed, selected);
  std::vector<Case> all;
  for (const std::string& text : wanted.cases) all.push_back(parse_case(text));
  if (wanted.cases.empty() || !wanted.suite.empty()) {
    Suites suites = load_suites(wanted.suite.empty() ? default_suites() : wanted.suite, wanted.tier);
    all.insert(all.end(), suites.cases.begin(), suites.cases.end());
    for (const auto& [path, hash] : suites.sources) selected.sources.emplace_back(relative_name(path), hash);
  }
  override_axes(all, wanted.axes);
  if (!seed.empty())
    for (Case& c : all) c = reseeded(c, seed);
  filter_cases(all, wanted.filters);
  std::set<std::string> seen;
  for (Case& c : all) {
    if (!in_shard(c.key(), wanted.shard) || !seen.insert(c.text()).second) continue;
    make_problem(c, false);
    selected.cases.push_back(std::move(c));
  }
  return selected;
}

}  // namespace fla::harness
