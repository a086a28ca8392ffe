#include "harness/check_plan.h"

#include <algorithm>
#include <cstring>
#include <map>
#include <set>

#include "harness/generate.h"
#include "harness/verdict.h"

namespace fla::harness {

Case reference_case(const Case& c) {
  std::map<std::string, std::string> values;
  for (const auto& [key, value] : c.values)
    if (key.find('.') == std::string::npos) values[key] = value;
  Case plain = make_case(*c.direction, values, c.text());
  plain.name = c.name;
  plain.tier = c.tier;
  return plain;
}

Result blank_result(const Case& c, const std::string& backend, int repeat) {
  Result r = begin_result(c, backend);
  if (repeat > 1) r.repro += " --repeat " + std::to_string(repeat);
  return r;
}

std::vector<Job> plan_jobs(const std::vector<Case>& cases, const PlanOptions& options) {
  std::vector<Job> jobs;
  if (!options.kernel_backend.empty())
    for (const Case& c : cases)
      jobs.push_back({"check " + c.text(), blank_result(c, options.kernel_backend, options.repeat), true});
  if (!options.references) return jobs;
  std::set<std::string> seen;
  std::map<std::string, std::set<std::pair<uint64_t, size_t>>> plain_fills;  // by operator: (seed, job)
  for (const Case& c : cases) {
    if (fill_of(c) == Fill::every) continue;  // no numbers of its own to prove a reference with
    const Case plain = reference_case(c);
    const std::string text = plain.text();
    if (!seen.insert(text).second) continue;
    // Other contents have ties and edges on purpose, where there is no derivative to differ from.
    if (!plain.find("fill")) plain_fills[plain.direction->op].insert({plain.seed(), jobs.size()});
    jobs.push_back({"prove " + text, blank_result(plain, "reference", 1), false});
  }
  // Those with the smallest seeds: any cases, and always the same ones.
  for (const auto& [op, by_seed] : plain_fills) {
    int left = options.differences;
    for (auto at = by_seed.begin(); at != by_seed.end() && left-- > 0; ++at)
      jobs[at->second].request.replace(0, std::strlen("prove"), "differentiate");
  }
  return jobs;
}

int exit_code_of(const std::vector<Result>& results, bool interrupted, const Demand& demand) {
  if (interrupted) return kInterrupted;
  const auto executed = std::count_if(results.begin(), results.end(), [](const Result& r) {
    return is_failure(r.status) || r.status == CaseStatus::passed;
  });
  if (std::any_of(results.begin(), results.end(), [](const Result& r) { return is_failure(r.status); }))
    return kFailed;
  const int least = std::max(demand.min_cases, demand.allow_empty ? 0 : 1);
  return executed < least ? kNothingRan : kPassed;
}

}  // namespace fla::harness
