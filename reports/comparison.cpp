// How a comparison reads: table, sentence, Markdown, JSON.
#include <cmath>
#include <nlohmann/json.hpp>
#include <utility>

#include "reports/compare.h"
#include "reports/escape.h"
#include "reports/json.h"

namespace fla::reports {

static std::string joined(const std::vector<std::string>& parts) {
  std::string text;
  for (const std::string& part : parts) text += (text.empty() ? "" : "; ") + part;
  return text;
}

static std::string status_text(const CaseChange& c) {
  const std::string after = harness::name_of(c.after);
  return c.before == c.after ? after : std::string(harness::name_of(c.before)) + " -> " + after;
}

static std::string verdict_text(const TimeChange& time) {
  return std::string(name_of(time.verdict)) + (time.clocks_differ ? " (clock)" : "");
}

static std::vector<std::string> time_row(const CaseChange& c, const TimeChange& time, std::string notes) {
  const Ratio& r = time.ratio;
  return {c.id,
          status_text(c),
          time.cache,
          microseconds(time.before_us),
          microseconds(time.after_us),
          fixed(r.value, 3),
          fixed(r.low, 3) + " .. " + fixed(r.high, 3),
          verdict_text(time),
          std::move(notes)};
}

Table comparison_table(const Comparison& comparison) {
  Table table{{{"case"},
               {"status"},
               {"cache"},
               {"before us", true},
               {"after us", true},
               {"ratio", true},
               {"95 %", true},
               {"verdict"},
               {"notes"}},
              {}};
  for (const CaseChange& c : comparison.cases) {
    bool is_pending = c.before != c.after || !c.notes.empty();  // something to tell besides the times
    for (const TimeChange& time : c.times) {
      if (time.verdict == Verdict::same && !is_pending) continue;
      table.rows.push_back(time_row(c, time, is_pending ? joined(c.notes) : ""));
      is_pending = false;
    }
    if (is_pending) table.rows.push_back({c.id, status_text(c), "", "", "", "", "", "", joined(c.notes)});
  }
  return table;
}

namespace {

struct Tally {
  int counts[4] = {};  // by Verdict
  int times = 0;
  double log_sum = 0, worst = 0;
  std::string worst_id;
};

Tally tally(const Comparison& comparison) {
  Tally t;
  for (const CaseChange& c : comparison.cases) {
    for (const TimeChange& time : c.times) {
      ++t.counts[static_cast<int>(time.verdict)];
      ++t.times;
      t.log_sum += std::log(time.ratio.value);
      if (time.ratio.value <= t.worst) continue;
      t.worst = time.ratio.value;
      t.worst_id = c.id;
    }
  }
  return t;
}

int status_changes(const Comparison& comparison) {
  int changes = 0;
  for (const CaseChange& c : comparison.cases) changes += c.before != c.after;
  return changes;
}

}  // namespace

std::string comparison_sentence(const Comparison& comparison) {
  if (comparison.refused) return "Not compared: " + one_line(joined(comparison.differences)) + ".";
  const Tally t = tally(comparison);
  const auto count = [&](Verdict v) {
    return std::to_string(t.counts[static_cast<int>(v)]) + " " + name_of(v);
  };
  std::string text = comparison.regression ? "REGRESSION. " : "No regression. ";
  text += std::to_string(comparison.cases.size()) + " cases in both runs, " +
          std::to_string(status_changes(comparison)) + " with another status, " +
          std::to_string(comparison.missing.size()) + " missing, " + std::to_string(comparison.added.size()) +
          " new; ";
  if (t.times == 0) return text + "no times to compare.";
  return text + std::to_string(t.times) + " times compared: " + count(Verdict::faster) + ", " +
         count(Verdict::slower) + ", " + count(Verdict::same) + ", " + count(Verdict::unclear) +
         "; geometric mean of the ratios " + fixed(std::exp(t.log_sum / t.times), 3) + " over " +
         std::to_string(t.times) + ", worst " + fixed(t.worst, 3) + " (" + one_line(t.worst_id) + ").";
}

std::string comparison_markdown(const Comparison& comparison) {
  std::string text = "**" + escape_markdown_cell(comparison_sentence(comparison)) + "**\n\n";
  for (const std::string& difference : comparison.differences) {
    text += "- " + escape_markdown_cell(difference) + "\n";
  }
  for (const std::string& id : comparison.missing) text += "- missing: " + escape_markdown_cell(id) + "\n";
  for (const std::string& id : comparison.added) text += "- new: " + escape_markdown_cell(id) + "\n";
  const Table table = comparison_table(comparison);
  return table.rows.empty() ? text : text + "\n" + markdown(table);
}

static Json time_json(const TimeChange& time) {
  return Json{{"cache", time.cache},
              {"before_us", time.before_us},
              {"after_us", time.after_us},
              {"ratio", time.ratio.value},
              {"interval", {time.ratio.low, time.ratio.high}},
              {"verdict", verdict_text(time)}};
}

std::string comparison_json(const Comparison& comparison) {
  Json cases = Json::array();
  for (const CaseChange& c : comparison.cases) {
    Json times = Json::array();
    for (const TimeChange& time : c.times) times.push_back(time_json(time));
    cases.push_back(Json{{"case", c.id},
                         {"before", harness::name_of(c.before)},
                         {"after", harness::name_of(c.after)},
                         {"regression", c.regression},
                         {"times", std::move(times)},
                         {"notes", c.notes}});
  }
  const Json document{{"schema", "fla.comparison/1"},
                      {"regression", comparison.regression},
                      {"refused", comparison.refused},
                      {"differences", comparison.differences},
                      {"missing", comparison.missing},
                      {"new", comparison.added},
                      {"summary", comparison_sentence(comparison)},
                      {"cases", std::move(cases)}};
  return dump_json(document) + "\n";
}

}  // namespace fla::reports
