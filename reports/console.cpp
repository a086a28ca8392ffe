#include "reports/console.h"

#include <unistd.h>

#include <cstdlib>

#include "reports/escape.h"
#include "reports/summary.h"

namespace fla::reports {

using harness::Result;
using harness::RunResult;

constexpr const char* kRed = "\033[31m";
constexpr const char* kGreen = "\033[32m";
constexpr const char* kYellow = "\033[33m";

static std::string paint(const char* colour, const std::string& text, bool on) {
  return on ? colour + text + "\033[0m" : text;
}

bool wants_colour(int file_descriptor) {
  const char* refused = std::getenv("NO_COLOR");
  return ::isatty(file_descriptor) == 1 && !(refused && *refused);
}

std::string failure_text(const Result& r, bool colour) {
  std::string text = paint(kRed, harness::name_of(r.status), colour) + "  " + one_line(r.case_text);
  if (!r.backend.empty()) text += " [" + one_line(r.backend) + "]";
  text += ": " + one_line(r.reason) + "\n";
  if (!r.repro.empty()) text += "    " + one_line(r.repro) + "\n";
  return text;
}

static std::string failures(const RunResult& run, bool colour) {
  std::string text;
  for (const Result& r : run.cases) {
    if (harness::is_failure(r.status)) text += failure_text(r, colour);
  }
  return text.empty() ? text : text + "\n";
}

static std::string ending(const RunResult& run, const Peers* peers, bool colour) {
  std::string text;
  for (const std::string& warning : warnings_in_words(run, peers)) {
    text += paint(kYellow, "warning", colour) + ": " + one_line(warning) + "\n";
  }
  const bool good = run.exit_code == harness::kPassed;
  return text + paint(good ? kGreen : kRed, one_line(verdict_sentence(run)), colour) + "\n";
}

std::string check_report(const RunResult& run, bool colour) {
  std::string text = failures(run, colour) + aligned(operators_table(run)) + "\n";
  const auto slow = slowest(run, 5);
  if (!slow.empty()) text += "slowest cases\n";
  for (const Result* r : slow) text += "  " + fixed(r->seconds, 2) + " s  " + one_line(r->case_text) + "\n";
  return text + (slow.empty() ? "" : "\n") + ending(run, nullptr, colour);
}

std::string bench_report(const RunResult& run, const Peers* peers, bool colour) {
  return failures(run, colour) + aligned(times_table(run, peers)) + "\n" + ending(run, peers, colour);
}

std::string compare_report(const Comparison& c, bool colour) {
  std::string text;
  for (const std::string& difference : c.differences) {
    text += paint(kYellow, c.refused ? "refused" : "note", colour) + ": " + one_line(difference) + "\n";
  }
  if (c.refused) return text + "These runs do not compare; --force compares them anyway.\n";
  const Table table = comparison_table(c);
  if (!table.rows.empty()) text += aligned(table) + "\n";
  for (const std::string& id : c.missing) text += paint(kRed, "missing", colour) + "  " + one_line(id) + "\n";
  for (const std::string& id : c.added) text += "new      " + one_line(id) + "\n";
  return text + paint(c.regression ? kRed : kGreen, comparison_sentence(c), colour) + "\n";
}

}  // namespace fla::reports
