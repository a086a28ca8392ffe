#include "reports/markdown.h"

#include <algorithm>

#include "reports/escape.h"
#include "reports/summary.h"

namespace fla::reports {

using harness::Result;

// Indented text is code in Markdown whatever it contains, unlike text between backticks.
static std::string failure(const Result& r) {
  const std::string title = std::string(harness::name_of(r.status)) + ": " + r.case_text + ": " + r.reason;
  std::string text = "- " + escape_markdown_cell(title) + "\n";
  if (!r.repro.empty()) text += "\n      " + one_line(r.repro) + "\n";
  return text;
}

std::string markdown_report(const harness::RunResult& run, const Peers* peers) {
  std::string text = "**" + escape_markdown_cell(verdict_sentence(run)) + "**\n\n";
  const harness::RunInfo& info = run.run;
  text += escape_markdown_cell(info.tool + " " + info.version + ", git " + info.git_sha.substr(0, 12) + ", " +
                               info.build_type + ", " + info.started) +
          "\n\n";
  for (const std::string& warning : warnings_in_words(run, peers)) {
    text += "- warning: " + escape_markdown_cell(warning) + "\n";
  }
  for (const Result& r : run.cases) {
    if (harness::is_failure(r.status)) text += failure(r);
  }
  const bool is_timed =
      std::any_of(run.cases.begin(), run.cases.end(), [](const Result& r) { return r.timed; });
  return text + "\n" + markdown(is_timed ? times_table(run, peers) : operators_table(run));
}

}  // namespace fla::reports
