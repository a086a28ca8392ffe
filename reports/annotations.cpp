#include "reports/annotations.h"

#include "reports/escape.h"

namespace fla::reports {

constexpr int kShown = 9;

static std::string annotation(const std::string& title, const std::string& message) {
  return "::error title=" + escape_workflow_property(one_line(title)) +
         "::" + escape_workflow_message(message) + "\n";
}

std::string github_annotations(const harness::RunResult& run) {
  std::string text;
  int failures = 0;
  for (const harness::Result& r : run.cases) {
    if (!harness::is_failure(r.status) || ++failures > kShown) continue;
    text +=
        annotation(std::string(harness::name_of(r.status)) + " " + r.case_text, r.reason + "\n" + r.repro);
  }
  if (failures > kShown) {
    text += annotation("more failures", std::to_string(failures - kShown) + " more cases failed");
  }
  return text;
}

}  // namespace fla::reports
