#include "reports/summary.h"

#include <algorithm>
#include <cmath>
#include <set>

namespace fla::reports {

using harness::CaseStatus;
using harness::Check;
using harness::Result;
using harness::RunResult;

// NaN ranks above everything: it is a failure that no bound describes.
static bool is_above(double value, double other) { return !std::isnan(other) && !(value <= other); }

double worst_bound_used(const Result& r) {
  double worst = 0;
  for (const Check& check : r.checks) {
    if (is_above(check.bound_used, worst)) worst = check.bound_used;
  }
  return worst;
}

std::string operator_name(const Result& r) { return r.op + "." + r.direction; }

std::string shape_text(const Result& r) {
  std::string text;
  for (const auto& [key, value] : r.params) {
    if (key == "fill" || key == "seed") continue;
    text += (text.empty() ? "" : " ") + key + "=" + value;
  }
  return text;
}

bool is_believable(const Result& r) {
  return r.metrics.sol <= kBelievableShare && r.metrics.sol_hot <= kBelievableShare;
}

std::string versus_text(const std::optional<Versus>& versus) {
  if (!versus) return "";
  return factor(versus->speedup) + " " + versus->peer.peer + (versus->peer.hot ? " hot" : "");
}

static double median(std::vector<double> values) {
  if (values.empty()) return 0;
  std::sort(values.begin(), values.end());
  const size_t n = values.size();
  return n % 2 ? values[n / 2] : (values[n / 2 - 1] + values[n / 2]) / 2;
}

static void add_case(OperatorSummary& s, const Result& r) {
  ++s.cases;
  if (r.status == CaseStatus::passed) ++s.passed;
  else if (harness::is_failure(r.status)) ++s.failed;
  else ++s.not_run;
  s.checks += static_cast<int>(r.checks.size());
  s.seconds += r.seconds;
  for (const Check& check : r.checks) {
    if (!is_above(check.bound_used, s.worst_bound_used)) continue;
    s.worst_bound_used = check.bound_used;
    s.worst_check = check.name + " of " + r.case_text;
  }
}

static void add_versus(OperatorSummary& s, const Result& r, const Peers& peers) {
  const std::optional<Versus> versus = fastest_peer(r, peers);
  if (!versus) return;
  if (!s.best_versus || versus->speedup > s.best_versus->speedup) s.best_versus = versus;
  if (!s.worst_versus || versus->speedup < s.worst_versus->speedup) s.worst_versus = versus;
}

std::vector<OperatorSummary> summarise_operators(const RunResult& run, const Peers* peers) {
  std::vector<OperatorSummary> summaries;
  std::vector<std::vector<double>> shares;
  std::map<std::pair<std::string, std::string>, size_t> index;
  for (const Result& r : run.cases) {
    const auto [it, is_new] = index.try_emplace({operator_name(r), r.backend}, summaries.size());
    if (is_new) {
      summaries.emplace_back();
      summaries.back().name = operator_name(r);
      summaries.back().backend = r.backend;
      shares.emplace_back();
    }
    OperatorSummary& s = summaries[it->second];
    add_case(s, r);
    if (peers) add_versus(s, r, *peers);
    if (r.timed && r.metrics.sol > 0) shares[it->second].push_back(r.metrics.sol);
  }
  for (size_t i = 0; i < summaries.size(); ++i) summaries[i].median_sol = median(shares[i]);
  return summaries;
}

std::map<CaseStatus, int> count_statuses(const RunResult& run) {
  std::map<CaseStatus, int> counts;
  for (const Result& r : run.cases) ++counts[r.status];
  return counts;
}

std::vector<const Result*> slowest(const RunResult& run, size_t count) {
  std::vector<const Result*> order;
  for (const Result& r : run.cases) {
    if (r.seconds > 0) order.push_back(&r);
  }
  std::stable_sort(order.begin(), order.end(), [](auto* a, auto* b) { return a->seconds > b->seconds; });
  order.resize(std::min(order.size(), count));
  return order;
}

static std::string counted(int count, const std::string& noun) {
  return std::to_string(count) + " " + noun + (count == 1 ? "" : "s");
}

static std::string place(const RunResult& run) {
  std::set<std::string> backends;
  for (const Result& r : run.cases) {
    if (r.status != CaseStatus::skipped && r.status != CaseStatus::listed) backends.insert(r.backend);
  }
  std::string list;
  for (const std::string& backend : backends) list += (list.empty() ? "" : ", ") + backend;
  const std::string device = run.run.device_name.empty() ? "an unnamed device" : run.run.device_name;
  return " on " + device + (list.empty() ? "" : " (" + list + ")");
}

std::string verdict_sentence(const RunResult& run) {
  const auto counts = count_statuses(run);
  int passed = 0, failed = 0;
  std::string rest;
  for (const auto& [status, count] : counts) {
    if (status == CaseStatus::passed) passed = count;
    else if (harness::is_failure(status)) failed += count;
    else rest += "; " + std::to_string(count) + " " + harness::name_of(status);
  }
  const int ran = passed + failed;
  if (ran == 0) return "Nothing ran" + rest + ".";
  const std::string where = place(run) + rest + ".";
  if (failed > 0) return std::to_string(failed) + " of " + counted(ran, "case") + " failed" + where;
  return (ran == 1 ? "The one case" : "All " + counted(ran, "case")) + " passed" + where;
}

static void warn_about_share(std::vector<std::string>& warnings, int count, size_t of,
                             const std::string& what) {
  if (count > 0)
    warnings.push_back(what + " in " + std::to_string(count) + " of " + counted(int(of), "case") + ".");
}

static void warn_about_cases(std::vector<std::string>& warnings, const RunResult& run) {
  int throttled = 0, unbelievable = 0;
  std::map<std::string, int> reasons;
  std::set<std::string> backends;
  for (const Result& r : run.cases) {
    throttled += r.cold.throttled || r.hot.throttled;
    unbelievable += !is_believable(r);
    backends.insert(r.backend);
    for (const std::string& reason : r.power.throttle_reasons) ++reasons[reason];
  }
  warn_about_share(warnings, throttled, run.cases.size(), "Clocks fell during the measurement");
  for (const auto& [reason, count] : reasons) {
    warn_about_share(warnings, count, run.cases.size(), "Throttle reason \"" + reason + "\" was active");
  }
  warn_about_share(warnings, unbelievable, run.cases.size(),
                   "Faster than the measured ceiling (the byte count or the cold cache is wrong)");
  if (backends.count("emulator")) {
    warnings.push_back(
        "Emulated cases ran the kernel sources on the CPU; nothing here was shown on a GPU by them.");
  }
}

std::vector<std::string> warnings_in_words(const RunResult& run, const Peers* peers) {
  std::vector<std::string> warnings = run.run.warnings;
  if (run.run.git_dirty) warnings.push_back("Built from a working tree with uncommitted changes.");
  const bool is_timed =
      std::any_of(run.cases.begin(), run.cases.end(), [](const Result& r) { return r.timed; });
  if (is_timed && !run.run.build_type.empty() && run.run.build_type != "Release") {
    warnings.push_back("Timed in a " + run.run.build_type + " build.");
  }
  warn_about_cases(warnings, run);
  if (peers && !run.run.device_name.empty() && !peers->device.starts_with(run.run.device_name)) {
    warnings.push_back("The peers were measured on another device: " + peers->device + ".");
  }
  return warnings;
}

Table operators_table(const RunResult& run) {
  Table table{{{"operator"},
               {"backend"},
               {"cases", true},
               {"passed", true},
               {"failed", true},
               {"not run", true},
               {"worst bound used", true},
               {"seconds", true}},
              {}};
  for (const OperatorSummary& s : summarise_operators(run, nullptr)) {
    table.rows.push_back({s.name, s.backend, std::to_string(s.cases), std::to_string(s.passed),
                          std::to_string(s.failed), std::to_string(s.not_run), fixed(s.worst_bound_used, 3),
                          fixed(s.seconds, 1)});
  }
  return table;
}

static std::string unless_zero(double value, std::string text) { return value != 0 ? std::move(text) : "-"; }

static std::vector<std::string> times_row(const Result& r, const Peers* peers) {
  const std::string name = shape_text(r) + (r.name.empty() ? "" : " (" + r.name + ")");
  if (!r.timed) return {operator_name(r), name, harness::name_of(r.status)};
  const harness::Metrics& m = r.metrics;
  std::vector<std::string> row{operator_name(r),
                               name,
                               unless_zero(r.cold.median_us, microseconds(r.cold.median_us)),
                               unless_zero(r.cold.median_us, "\u00b1" + percent(r.cold.noise)),
                               unless_zero(m.gbps, fixed(m.gbps, 0)),
                               unless_zero(m.sol, fixed(100 * m.sol, 1) + (is_believable(r) ? "" : " !")),
                               unless_zero(r.hot.median_us, microseconds(r.hot.median_us)),
                               unless_zero(r.launch_us, microseconds(r.launch_us))};
  if (peers) row.push_back(versus_text(fastest_peer(r, *peers)));
  return row;
}

Table times_table(const RunResult& run, const Peers* peers) {
  Table table{{{"operator"},
               {"case"},
               {"time us", true},
               {"noise", true},
               {"GB/s", true},
               {"sol %", true},
               {"hot us", true},
               {"launch us", true}},
              {}};
  if (peers) table.columns.push_back({"vs fastest peer", true});
  for (const Result& r : run.cases) table.rows.push_back(times_row(r, peers));
  return table;
}

}  // namespace fla::reports
