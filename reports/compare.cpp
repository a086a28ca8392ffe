#include "reports/compare.h"

#include <algorithm>
#include <map>

#include "reports/summary.h"

namespace fla::reports {

using harness::CaseStatus;
using harness::Result;
using harness::RunInfo;
using harness::RunResult;
using harness::Timing;

constexpr double kClockTolerance = 0.02;
// A share of the bound below this is too far from the limit for its doubling to matter.
constexpr double kBoundFloor = 0.25;

static void add_difference(Comparison& c, const char* what, const std::string& before,
                           const std::string& after) {
  if (before != after) c.differences.push_back(std::string(what) + ": " + before + " -> " + after);
}

static std::string major_version(const std::string& version) { return version.substr(0, version.find('.')); }

// What makes times incomparable.
static void compare_machines(Comparison& c, const RunInfo& before, const RunInfo& after) {
  add_difference(c, "device", before.device_name, after.device_name);
  add_difference(c, "driver major version", major_version(before.driver), major_version(after.driver));
  add_difference(c, "build type", before.build_type, after.build_type);
}

static void compare_suites(Comparison& c, const RunInfo& before, const RunInfo& after) {
  const std::map<std::string, std::string> old_hashes(before.suites.begin(), before.suites.end());
  const std::map<std::string, std::string> new_hashes(after.suites.begin(), after.suites.end());
  for (const auto& [path, hash] : old_hashes) {
    const auto it = new_hashes.find(path);
    if (it == new_hashes.end()) c.differences.push_back("suite " + path + " is not in the new run");
    else if (it->second != hash) c.differences.push_back("suite " + path + " differs");
  }
  for (const auto& [path, hash] : new_hashes) {
    if (!old_hashes.count(path)) c.differences.push_back("suite " + path + " is new");
  }
}

// Keys in file order; a repeated case (--repeat) meets its counterpart of the same repetition.
using Ids = std::vector<std::pair<std::string, const Result*>>;
static Ids identify(const RunResult& run) {
  Ids ids;
  std::map<std::string, int> uses;
  for (const Result& r : run.cases) {
    std::string id = r.key + (r.backend == "gpu" || r.backend.empty() ? "" : " [" + r.backend + "]");
    const int use = ++uses[id];
    if (use > 1) id += " #" + std::to_string(use);
    ids.emplace_back(std::move(id), &r);
  }
  return ids;
}

static TimeChange compare_times(const char* cache, const Timing& before, const Timing& after,
                                const CompareOptions& options) {
  TimeChange change{cache, before.median_us, after.median_us, ratio_of_medians(before, after, options.seed)};
  const bool is_small = before.median_us < options.small_us;
  const double threshold =
      is_small ? std::max(options.threshold, options.small_threshold) : options.threshold;
  change.verdict = judge(change.ratio, threshold);
  const double clocks = clock_ratio(before, after);
  if (clocks < 1 - kClockTolerance || clocks > 1 + kClockTolerance) {
    const Ratio& r = change.ratio;
    const Verdict in_cycles = judge({r.value * clocks, r.low * clocks, r.high * clocks}, threshold);
    change.clocks_differ = in_cycles != change.verdict;
    if (change.clocks_differ) change.verdict = Verdict::unclear;
  }
  return change;
}

static void add_times(CaseChange& change, const Result& before, const Result& after,
                      const CompareOptions& options) {
  if (!before.timed || !after.timed) {
    if (before.timed) change.notes.push_back("no longer timed");
    return;
  }
  const auto add = [&](const char* cache, const Timing& a, const Timing& b) {
    if (a.median_us > 0 && b.median_us > 0) change.times.push_back(compare_times(cache, a, b, options));
    else if (a.median_us > 0) change.notes.push_back(std::string(cache) + " time no longer measured");
  };
  add("cold", before.cold, after.cold);
  add("hot", before.hot, after.hot);
  for (const TimeChange& time : change.times) change.regression |= time.verdict == Verdict::slower;
}

static void add_memory(CaseChange& change, const char* what, int64_t before, int64_t after,
                       bool more_is_worse) {
  if (before == after) return;
  change.notes.push_back(std::string(what) + " " + byte_count(before) + " -> " + byte_count(after));
  change.regression |= more_is_worse && after > before;
}

static void add_bound(CaseChange& change, const Result& before, const Result& after) {
  const double old_share = worst_bound_used(before), new_share = worst_bound_used(after);
  if (before.status != CaseStatus::passed || before.checks.empty() || after.checks.empty()) return;
  const bool fine = new_share <= kBoundFloor || new_share <= 2 * old_share;
  if (fine) return;
  change.notes.push_back("bound used " + fixed(old_share, 2) + " -> " + fixed(new_share, 2));
  change.regression = true;
}

static bool did_not_run(CaseStatus s) { return s != CaseStatus::passed && !harness::is_failure(s); }

static CaseChange compare_case(const std::string& id, const Result& before, const Result& after,
                               const CompareOptions& options) {
  CaseChange change;
  change.id = id;
  change.before = before.status;
  change.after = after.status;
  const bool gone = !did_not_run(before.status) && did_not_run(after.status) && !options.allow_missing;
  const bool broke = !harness::is_failure(before.status) && harness::is_failure(after.status);
  change.regression = gone || broke;
  if (before.status != after.status && !after.reason.empty()) change.notes.push_back(after.reason);
  if (did_not_run(before.status) || did_not_run(after.status)) return change;
  add_times(change, before, after, options);
  add_memory(change, "workspace", before.memory.workspace, after.memory.workspace, true);
  add_memory(change, "saved", before.memory.saved, after.memory.saved, true);
  add_memory(change, "inputs", before.memory.inputs, after.memory.inputs, false);
  add_memory(change, "outputs", before.memory.outputs, after.memory.outputs, false);
  add_bound(change, before, after);
  return change;
}

static double worst_ratio(const CaseChange& change) {
  double worst = 0;
  for (const TimeChange& time : change.times) worst = std::max(worst, time.ratio.value);
  return worst;
}

static void sort_changes(std::vector<CaseChange>& cases) {
  const auto rank = [](const CaseChange& c) { return c.before != c.after ? 0 : c.regression ? 1 : 2; };
  std::stable_sort(cases.begin(), cases.end(), [&](const CaseChange& a, const CaseChange& b) {
    return rank(a) != rank(b) ? rank(a) < rank(b) : worst_ratio(a) > worst_ratio(b);
  });
}

Comparison compare(const RunResult& before, const RunResult& after, const CompareOptions& options) {
  Comparison c;
  compare_machines(c, before.run, after.run);
  c.refused = !c.differences.empty() && !options.force;
  if (c.refused) return c;
  compare_suites(c, before.run, after.run);
  const Ids old_ids = identify(before), new_ids = identify(after);
  const std::map<std::string, const Result*> old_cases(old_ids.begin(), old_ids.end());
  const std::map<std::string, const Result*> new_cases(new_ids.begin(), new_ids.end());
  for (const auto& [id, r] : old_ids) {
    const auto match = new_cases.find(id);
    if (match == new_cases.end()) c.missing.push_back(id);
    else c.cases.push_back(compare_case(id, *r, *match->second, options));
  }
  for (const auto& [id, r] : new_ids) {
    if (!old_cases.count(id)) c.added.push_back(id);
  }
  sort_changes(c.cases);
  c.regression = !c.missing.empty() && !options.allow_missing;
  for (const CaseChange& change : c.cases) c.regression |= change.regression;
  return c;
}

}  // namespace fla::reports
