#include "harness/verdict.h"

#include <algorithm>

namespace fla::harness {

Check verdict(std::string name, std::string detail) {
  Check c;
  c.name = std::move(name);
  c.status = detail.empty() ? CaseStatus::passed : CaseStatus::failed;
  c.detail = std::move(detail);
  return c;
}

Result begin_result(const Case& c, const std::string& backend) {
  Result r;
  r.key = c.key();
  r.case_text = c.text();
  r.op = c.direction->op;
  r.direction = c.direction->name;
  r.tier = c.tier;
  r.name = c.name;
  r.params = c.values;
  r.backend = backend;
  r.repro = "fla-check " + r.case_text + " --backend " + backend;
  return r;
}

void finish_result(Result& r) {
  if (r.checks.empty()) {
    r.status = CaseStatus::skipped;
    r.reason = "there is nothing to check";
    return;
  }
  r.status = CaseStatus::passed;
  for (const CaseStatus bad : {CaseStatus::failed, CaseStatus::mistrusted}) {
    const auto first =
        std::find_if(r.checks.begin(), r.checks.end(), [&](const Check& c) { return c.status == bad; });
    if (first == r.checks.end()) continue;
    r.status = bad;
    r.reason = first->name + (first->detail.empty() ? "" : ": " + first->detail);
    return;
  }
}

}  // namespace fla::harness
