#include <numeric>

#include "reports/chart.h"
#include "reports/escape.h"
#include "reports/html_parts.h"
#include "reports/summary.h"

namespace fla::reports {

using harness::CaseStatus;
using harness::Check;
using harness::Result;
using harness::Timing;

namespace {

constexpr size_t kDetailedCases = 2000;  // beyond, a page with the details of all is too large for browsers

std::string measured_cell(double value, const std::string& text) {
  return number_cell(value, value > 0 ? text : "");
}

const char* status_class(CaseStatus status) {
  if (status == CaseStatus::passed) return "class=\"good\"";
  return harness::is_failure(status) ? "class=\"bad\"" : "class=\"note\"";
}

std::string share_cell(double share) {
  const std::string text = share > 0 ? fixed(100 * share, 1) : "";
  if (share <= kBelievableShare) return number_cell(share, text);
  return element(
      "td", text,
      "class=\"n bad\" title=\"above the measured ceiling\" data-v=\"" + significant(share) + "\"");
}

std::string case_row(const Result& r, const Peers* peers, const std::string& anchor) {
  const std::string link = "<a href=\"#" + anchor + "\">" + escape_markup(r.case_text) + "</a>";
  std::string html = "<tr>" + element("td", harness::name_of(r.status), status_class(r.status)) + "<td>" +
                     link + "</td>" + element("td", r.name) + element("td", r.backend);
  html += measured_cell(r.cold.median_us, microseconds(r.cold.median_us));
  html += measured_cell(r.metrics.gbps, fixed(r.metrics.gbps, 0));
  html += share_cell(r.metrics.sol) + measured_cell(r.hot.median_us, microseconds(r.hot.median_us));
  html += measured_cell(r.launch_us, microseconds(r.launch_us));
  const auto versus = peers ? fastest_peer(r, *peers) : std::nullopt;
  html += number_cell(versus ? versus->speedup : 0, versus_text(versus));
  const double bound_used = worst_bound_used(r);
  html += number_cell(bound_used, r.checks.empty() ? "" : fixed(bound_used, 3));
  return html + number_cell(r.seconds, fixed(r.seconds, 2)) + "</tr>\n";
}

std::string line(const std::string& name, const std::string& value) {
  return value.empty() ? "" : element("dt", name) + "<dd>" + escape_markup(value) + "</dd>\n";
}

double mean(const std::vector<double>& values) {
  return values.empty() ? 0 : std::accumulate(values.begin(), values.end(), 0.0) / double(values.size());
}

std::string timing_line(const char* name, const Timing& t) {
  if (!(t.median_us > 0)) return "";
  std::string text = "median " + microseconds(t.median_us) + " us, quartiles " + microseconds(t.q1_us) +
                     " to " + microseconds(t.q3_us) + " us, noise " + percent(t.noise) + ", " +
                     std::to_string(t.samples_us.size()) + " samples in " +
                     std::to_string(t.round_medians_us.size()) + " rounds (" + t.stop + ")";
  if (!t.clock_mhz.empty()) text += ", " + fixed(mean(t.clock_mhz), 0) + " MHz";
  if (t.throttled) text += ", throttled";
  return element("dt", name) + "<dd>" + escape_markup(text) + svg_strip(t.samples_us) + "</dd>\n";
}

std::string memory_text(const harness::Memory& m) {
  if (m.peak <= 0 && m.inputs <= 0) return "";
  std::string text = "inputs " + byte_count(m.inputs) + ", outputs " + byte_count(m.outputs) + ", saved " +
                     byte_count(m.saved) + ", workspace " + byte_count(m.workspace);
  if (m.workspace_touched >= 0) text += " (" + byte_count(m.workspace_touched) + " touched)";
  text += ", peak " + byte_count(m.peak);
  if (m.device_growth != 0) text += ", device memory lost " + byte_count(m.device_growth);
  return text;
}

std::string power_text(const harness::Power& p) {
  if (!(p.watts_max > 0)) return "";
  std::string text = fixed(p.watts_mean, 0) + " W mean, " + fixed(p.watts_max, 0) + " W highest, " +
                     fixed(p.temperature_max, 0) + " C";
  for (const std::string& reason : p.throttle_reasons) text += ", " + reason;
  return text;
}

std::string peers_text(const Result& r, const Peers& peers) {
  std::string text;
  for (const PeerRow& row : peers_of(r, peers)) {
    text +=
        (text.empty() ? "" : "; ") + row.peer + " " + microseconds(row.us) + " us" + (row.hot ? " hot" : "");
  }
  return text;
}

// A check that compared numbers, or failed, earns a row; the others are named in a sentence.
bool has_row(const Check& check) { return check.status != CaseStatus::passed || check.elements > 0; }

std::string check_row(const Check& c) {
  std::string html =
      "<tr>" + element("td", c.name) + element("td", harness::name_of(c.status), status_class(c.status));
  for (const double value : {c.bound_used, c.max_error, c.max_ulp, c.mean_ulp, c.signed_bias}) {
    html += number_cell(value, significant(value));
  }
  html += number_cell(double(c.outside), std::to_string(c.outside) + " of " + std::to_string(c.elements));
  html += element("td", c.index);
  for (const double value : {c.got, c.expected, c.bound}) html += number_cell(value, significant(value));
  return html + element("td", c.detail) + "</tr>\n";
}

std::string checks(const Result& r) {
  std::string rows, others;
  for (const Check& check : r.checks) {
    if (has_row(check)) rows += check_row(check);
    else others += (others.empty() ? "" : ", ") + check.name;
  }
  std::string html = line("also passed", others);
  if (rows.empty()) return html;
  html += "<dt>checks</dt><dd><table><thead><tr>";
  for (const char* title : {"check", "status", "bound used", "max error", "max ulp", "mean ulp", "bias",
                            "outside", "at", "got", "expected", "bound", "detail"}) {
    html += element("th", title);
  }
  return html + "</tr></thead><tbody>\n" + rows + "</tbody></table></dd>\n";
}

}  // namespace

std::string html_case_details(const Result& r, const Peers* peers) {
  std::string html = "<dl>\n" + line("reason", r.reason);
  if (!r.repro.empty()) html += "<dt>repeat</dt><dd>" + element("code", r.repro) + "</dd>\n";
  html += timing_line("cold", r.cold) + timing_line("hot", r.hot);
  if (peers) html += line("peers", peers_text(r, *peers));
  if (r.metrics.ceiling_us > 0) {
    const std::string of = r.metrics.products > 0
                               ? std::to_string(r.metrics.products) + " matrix products alone"
                               : "the same bytes, reads to writes " + r.metrics.mix;
    html += line("ceiling", microseconds(r.metrics.ceiling_us) + " us for " + of + ", measured in this run");
  }
  html += line("memory", memory_text(r.memory)) + line("power", power_text(r.power)) + checks(r);
  return html + "</dl>";
}

std::string html_cases(const harness::RunResult& run, const Peers* peers, const std::string& prefix) {
  std::string html =
      "<h3>Cases</h3>\n<p class=\"filter\" hidden><label>Filter <input type=\"search\" "
      "placeholder=\"rms_norm.*x=bf16*\"></label> <span></span></p>\n"
      "<table class=\"sortable cases\"><thead><tr>";
  for (const char* title : {"status", "case", "name", "backend", "time us", "GB/s", "sol %", "hot us",
                            "launch us", "vs fastest peer", "bound used", "seconds"}) {
    html += element("th", title);
  }
  html += "</tr></thead>\n";
  const bool brief = run.cases.size() > kDetailedCases;
  for (size_t i = 0; i < run.cases.size(); ++i) {
    const Result& r = run.cases[i];
    const std::string anchor = prefix + "-c" + std::to_string(i);
    html += "<tbody id=\"" + anchor + "\" data-case=\"" + escape_markup(r.case_text) + "\">" +
            case_row(r, peers, anchor);
    if (!brief || r.timed || r.status != CaseStatus::passed)
      html += std::string("<tr class=\"more\"><td colspan=\"12\"><details") + (harness::is_failure(r.status) ? " open" : "") +
              "><summary>details</summary>" + html_case_details(r, peers) + "</details></td></tr>";
    html += "</tbody>\n";
  }
  return html + "</table>\n" + (brief ? "<p>Details of what passed and was not timed are in the JSON.</p>\n" : "");
}

}  // namespace fla::reports
