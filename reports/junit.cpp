#include "reports/junit.h"

#include "reports/escape.h"
#include "reports/summary.h"

namespace fla::reports {

using harness::CaseStatus;
using harness::Check;
using harness::Result;

static bool is_error(CaseStatus s) {
  return s == CaseStatus::crashed || s == CaseStatus::timeout || s == CaseStatus::out_of_memory;
}

static bool did_not_run(CaseStatus s) { return s != CaseStatus::passed && !harness::is_failure(s); }

static std::string attribute(const char* name, std::string_view value) {
  return std::string(" ") + name + "=\"" + escape_markup(one_line(value)) + "\"";
}

static std::string details(const Result& r) {
  std::string text = r.reason + "\n" + r.repro + "\n";
  for (const Check& check : r.checks) {
    if (!harness::is_failure(check.status)) continue;
    text += check.name + " " + harness::name_of(check.status);
    if (!check.index.empty()) {
      text += " at " + check.index + ": got " + significant(check.got) + ", expected " +
              significant(check.expected) + " within " + significant(check.bound);
    }
    text += (check.detail.empty() ? "" : ", " + check.detail) + "\n";
  }
  return text;
}

static std::string outcome(const Result& r) {
  if (r.status == CaseStatus::passed) return "";
  if (did_not_run(r.status)) {
    return "<skipped" + attribute("message", std::string(harness::name_of(r.status)) + ": " + r.reason) +
           "/>";
  }
  const std::string element = is_error(r.status) ? "error" : "failure";
  return "<" + element + attribute("type", harness::name_of(r.status)) + attribute("message", r.reason) +
         ">" + escape_markup(details(r)) + "</" + element + ">";
}

static std::string test_case(const Result& r) {
  return "    <testcase" + attribute("classname", operator_name(r) + " " + r.backend) +
         attribute("name", r.case_text) + attribute("time", fixed(r.seconds, 3)) + ">" + outcome(r) +
         "</testcase>\n";
}

static std::string test_suite(const OperatorSummary& s, const harness::RunResult& run) {
  std::string cases;
  int errors = 0;
  for (const Result& r : run.cases) {
    if (operator_name(r) != s.name || r.backend != s.backend) continue;
    errors += is_error(r.status);
    cases += test_case(r);
  }
  return "  <testsuite" + attribute("name", s.name + " " + s.backend) +
         attribute("tests", std::to_string(s.cases)) +
         attribute("failures", std::to_string(s.failed - errors)) +
         attribute("errors", std::to_string(errors)) + attribute("skipped", std::to_string(s.not_run)) +
         attribute("time", fixed(s.seconds, 3)) + attribute("timestamp", run.run.started) + ">\n" + cases +
         "  </testsuite>\n";
}

std::string junit_xml(const harness::RunResult& run) {
  std::string text =
      "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites" + attribute("name", run.run.tool) + ">\n";
  for (const OperatorSummary& s : summarise_operators(run, nullptr)) text += test_suite(s, run);
  return text + "</testsuites>\n";
}

}  // namespace fla::reports
