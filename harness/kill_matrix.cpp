#include "harness/kill_matrix.h"

#include <algorithm>
#include <cstdio>

#include "reports/text_table.h"

namespace fla::harness {
namespace {

std::string joined(const std::set<std::string>& names) {
  std::string text;
  for (const std::string& name : names) text += (text.empty() ? "" : ", ") + name;
  return text.empty() ? "nothing" : text;
}

// Verdicts on numbers carry the name of a tensor of the operator.
std::string net_of(const Check& c) {
  static const std::set<std::string> protocol = {
      "kernel",    "guards",     "inputs_unchanged", "poison", "repeat",          "determinism",
      "workspace", "asynchrony", "graph",            "empty",  "dropped_outputs", "rejects"};
  if (c.name.rfind("trust:", 0) == 0) return "trust";
  if (c.name.rfind("relation:", 0) == 0 || protocol.count(c.name)) return c.name;
  return "compare";
}

}  // namespace

Reported reported_by(const Result& r) {
  Reported reported;
  for (const Check& c : r.checks)
    if (is_failure(c.status)) reported.nets.insert(net_of(c));
  if (reported.nets.empty() && is_failure(r.status)) reported.nets.insert(name_of(r.status));
  reported.detail = r.reason;
  return reported;
}

KillMatrix::Row& KillMatrix::row(const std::string& layer, const std::string& fault) {
  const auto same = [&](const Row& r) { return r.layer == layer && r.fault == fault; };
  const auto at = std::find_if(rows_.begin(), rows_.end(), same);
  if (at != rows_.end()) return *at;
  rows_.emplace_back();
  rows_.back().layer = layer;
  rows_.back().fault = fault;
  return rows_.back();
}

void KillMatrix::see(Reported& reported) const { reported.nets.erase(without_); }

void KillMatrix::planted(const std::string& layer, const std::string& fault, const std::string& subject,
                         const std::set<std::string>& responsible, Reported reported) {
  see(reported);
  const bool caught = std::any_of(responsible.begin(), responsible.end(),
                                  [&](const std::string& net) { return reported.nets.count(net) > 0; });
  Row& r = row(layer, fault);
  Share& share = layers_[layer];
  ++r.planted, ++planted_, ++share.planted;
  r.caught += caught, caught_ += caught, share.caught += caught;
  for (const std::string& net : reported.nets) ++r.nets[net];
  log_ += layer + " " + fault + " in " + subject + ": " + joined(reported.nets) +
          (reported.detail.empty() ? "" : " (" + reported.detail + ")") + "\n";
  if (!caught)
    escapes_.push_back(layer + " " + fault + " in " + subject + ": to be caught by " + joined(responsible) +
                       ", reported by " + joined(reported.nets));
}

void KillMatrix::clean(const std::string& layer, const std::string& subject, Reported reported) {
  see(reported);
  Share& share = layers_[layer];
  ++share.clean;
  if (reported.nets.empty()) return;
  ++share.false_alarms;
  false_alarms_.push_back(layer + " " + subject + ": nothing is wrong, yet " + joined(reported.nets) +
                          " reported: " + reported.detail);
}

std::string KillMatrix::table() const {
  reports::Table t;
  t.columns = {{"layer"}, {"fault"}, {"planted", true}, {"caught", true}, {"share", true}, {"reported by"}};
  for (const Row& r : rows_) {
    std::string nets;
    for (const auto& [net, count] : r.nets)
      nets += (nets.empty() ? "" : ", ") + net + " " + std::to_string(count);
    t.rows.push_back({r.layer, r.fault, std::to_string(r.planted), std::to_string(r.caught),
                      reports::percent(static_cast<double>(r.caught) / r.planted), nets});
  }
  return reports::aligned(t);
}

std::string KillMatrix::summary() const {
  std::string text;
  for (const auto& [layer, share] : layers_) {
    char line[160];
    std::snprintf(line, sizeof line, "%s: %d of %d faults caught (%.1f %%), %d of %d right ones reported\n",
                  layer.c_str(), share.caught, share.planted,
                  share.planted > 0 ? 100.0 * share.caught / share.planted : 0.0, share.false_alarms,
                  share.clean);
    text += line;
  }
  for (const std::string& escape : escapes_) text += "ESCAPED " + escape + "\n";
  for (const std::string& alarm : false_alarms_) text += "FALSE ALARM " + alarm + "\n";
  return text;
}

}  // namespace fla::harness
