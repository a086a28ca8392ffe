#include "reports/html.h"

#include "reports/escape.h"
#include "reports/html_parts.h"
#include "reports/json.h"
#include "reports/run_charts.h"
#include "reports/summary.h"

namespace fla::reports {

using harness::RunInfo;
using harness::RunResult;

std::string element(const char* tag, std::string_view text, std::string_view attributes) {
  const std::string space = attributes.empty() ? "" : " ";
  return "<" + std::string(tag) + space + std::string(attributes) + ">" + escape_markup(text) + "</" + tag +
         ">";
}

std::string number_cell(double value, const std::string& text) {
  return element("td", text, "class=\"n\" data-v=\"" + significant(value) + "\"");
}

namespace {

void add_part(std::string& line, const std::string& part) {
  if (!part.empty()) line += (line.empty() ? "" : " \u00b7 ") + part;
}

std::string device_line(const RunInfo& run) {
  std::string line;
  add_part(line, run.device_name);
  if (run.multiprocessors > 0) {
    add_part(line, std::to_string(run.multiprocessors) + " SMs, sm_" + std::to_string(run.sm));
  }
  if (run.device_memory > 0) add_part(line, byte_count(run.device_memory));
  if (!run.driver.empty()) add_part(line, "driver " + run.driver);
  if (run.power_limit_w > 0) add_part(line, fixed(run.power_limit_w, 0) + " W limit");
  add_part(line, run.cpu);
  add_part(line, run.os);
  return line;
}

std::string build_line(const RunInfo& run) {
  std::string line;
  add_part(line, run.tool + " " + run.version);
  if (!run.git_sha.empty())
    add_part(line, "git " + run.git_sha.substr(0, 12) + (run.git_dirty ? " (modified)" : ""));
  add_part(line, run.build_type);
  add_part(line, run.compiler);
  if (!run.cuda.empty()) add_part(line, "CUDA " + run.cuda);
  if (!run.architectures.empty()) add_part(line, "for " + run.architectures);
  add_part(line, run.started);
  return line;
}

std::string counts_line(const RunResult& run) {
  std::string line;
  for (const auto& [status, count] : count_statuses(run)) {
    add_part(line, std::to_string(count) + " " + harness::name_of(status));
  }
  return line;
}

bool has_failed(const RunResult& run) {
  for (const auto& [status, count] : count_statuses(run)) {
    if (harness::is_failure(status)) return true;
  }
  return run.exit_code != harness::kPassed;
}

std::string head(const RunResult& run, const Peers* peers) {
  std::string html =
      element("h2", verdict_sentence(run), has_failed(run) ? "class=\"bad\"" : "class=\"good\"");
  html += "\n" + element("p", counts_line(run)) + "\n" + element("p", device_line(run.run)) + "\n" +
          element("p", build_line(run.run)) + "\n";
  const auto warnings = warnings_in_words(run, peers);
  if (!warnings.empty()) html += "<ul class=\"warnings\">\n";
  for (const std::string& warning : warnings) html += element("li", warning) + "\n";
  return html + (warnings.empty() ? "" : "</ul>\n");
}

std::string versus_cell(const std::optional<Versus>& versus) {
  return number_cell(versus ? versus->speedup : 0, versus_text(versus));
}

std::string operators_section(const RunResult& run, const Peers* peers) {
  std::string html = "<h3>Operators</h3>\n<table class=\"sortable\"><thead><tr>";
  for (const char* title : {"operator", "backend", "cases", "passed", "failed", "not run", "checks",
                            "worst bound used", "median sol %", "best vs peer", "worst vs peer", "seconds"}) {
    html += element("th", title);
  }
  html += "</tr></thead>\n";
  for (const OperatorSummary& s : summarise_operators(run, peers)) {
    html += "<tbody><tr>" + element("td", s.name) + element("td", s.backend);
    for (const int count : {s.cases, s.passed, s.failed, s.not_run, s.checks}) {
      html += number_cell(count, std::to_string(count));
    }
    html += element("td", fixed(s.worst_bound_used, 3),
                    "class=\"n\" data-v=\"" + significant(s.worst_bound_used) + "\" title=\"" +
                        escape_markup(s.worst_check) + "\"");
    html += number_cell(s.median_sol, s.median_sol > 0 ? fixed(100 * s.median_sol, 1) : "");
    html += versus_cell(s.best_versus) + versus_cell(s.worst_versus) +
            number_cell(s.seconds, fixed(s.seconds, 1));
    html += "</tr></tbody>\n";
  }
  return html + "</table>\n";
}

std::string charts_section(const RunResult& run, const Peers* peers) {
  const std::string speed = bandwidth_chart(run) + roofline_chart(run) + scaling_charts(run, peers);
  const std::string memory = memory_bars(run);
  std::string html;
  if (!speed.empty()) html += "<h3>Speed</h3>\n<div class=\"charts\">\n" + speed + "</div>\n";
  if (!memory.empty()) html += "<h3>Memory of the largest cases</h3>\n" + memory;
  return html;
}

std::string peers_line(const Peers& peers) {
  std::string line;
  add_part(line, "Peers measured on " + peers.device);
  add_part(line, peers.date);
  add_part(line, peers.method);
  return element("p", line, "class=\"note\"") + "\n";
}

std::string section(const RunResult& run, const Peers* peers, size_t index) {
  const std::string prefix = "r" + std::to_string(index);
  std::string html = "<section id=\"" + prefix + "\">\n" + head(run, peers) + operators_section(run, peers) +
                     charts_section(run, peers) + html_cases(run, peers, prefix);
  if (peers) html += peers_line(*peers);
  return html + "<script type=\"application/json\" id=\"results-" + std::to_string(index) + "\">" +
         escape_script_json(write_results(run)) + "</script>\n</section>\n";
}

}  // namespace

std::string html_page(const std::vector<RunResult>& runs, const Peers* peers) {
  std::string html =
      "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n"
      "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n"
      "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; "
      "script-src 'unsafe-inline'\">\n<title>fla report</title>\n<style>";
  html += kPageStyle;
  html += "</style></head><body>\n<h1>fla report</h1>\n";
  for (size_t i = 0; i < runs.size(); ++i) html += section(runs[i], peers, i);
  return html + "<script>" + kPageScript + "</script>\n</body></html>\n";
}

}  // namespace fla::reports
