#include "harness/kill_matrix.h"

#include <algorithm>
#include <map>

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
  static const std::set<std::string> protocol = {"kernel", "guards",      "inputs_unchanged", "poison",
                                                 "repeat", "determinism", "workspace",        "asynchrony",
                                                 "graph",  "empty",       "dropped_outputs",  "rejects"};
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

void KillMatrix::planted(const std::string& layer, const std::string& fault, const std::string& subject,
                         const std::set<std::string>& responsible, Reported reported) {
  entries_.push_back({layer, fault, subject, responsible, std::move(reported)});
}

void KillMatrix::clean(const std::string& layer, const std::string& subject, Reported reported) {
  entries_.push_back({layer, "", subject, {}, std::move(reported)});
}

bool KillMatrix::caught(const Entry& e, const std::string& without) {
  return std::any_of(e.responsible.begin(), e.responsible.end(), [&](const std::string& net) {
    return net != without && e.reported.nets.count(net) > 0;
  });
}

bool KillMatrix::false_alarm(const Entry& e, const std::string& without) {
  return e.responsible.empty() && e.reported.nets.size() > e.reported.nets.count(without);
}

std::set<std::string> KillMatrix::nets() const {
  std::set<std::string> all;
  for (const Entry& e : entries_) all.insert(e.responsible.begin(), e.responsible.end());
  return all;
}

bool KillMatrix::complete(const std::string& without) const {
  const auto good = [&](const Entry& e) {
    return e.responsible.empty() ? !false_alarm(e, without) : caught(e, without);
  };
  return !nets().empty() && std::all_of(entries_.begin(), entries_.end(), good);
}

std::string KillMatrix::table(const std::string& without) const {
  struct Row {
    std::string layer, fault;
    int planted = 0, caught = 0;
    std::map<std::string, int> nets;
  };
  std::vector<Row> rows;
  for (const Entry& e : entries_) {
    if (e.responsible.empty()) continue;
    auto row = std::find_if(rows.begin(), rows.end(),
                            [&](const Row& r) { return r.layer == e.layer && r.fault == e.fault; });
    if (row == rows.end()) row = rows.insert(rows.end(), Row{e.layer, e.fault, 0, 0, {}});
    ++row->planted;
    row->caught += caught(e, without);
    for (const std::string& net : e.reported.nets)
      if (net != without) ++row->nets[net];
  }
  reports::Table t;
  t.columns = {{"layer"}, {"fault"}, {"planted", true}, {"caught", true}, {"share", true}, {"reported by"}};
  for (const Row& r : rows) {
    std::string nets;
    for (const auto& [net, count] : r.nets)
      nets += (nets.empty() ? "" : ", ") + net + " " + std::to_string(count);
    t.rows.push_back({r.layer, r.fault, std::to_string(r.planted), std::to_string(r.caught),
                      reports::percent(static_cast<double>(r.caught) / r.planted), nets});
  }
  return reports::aligned(t);
}

std::string KillMatrix::summary(const std::string& without) const {
  struct Share {
    int planted = 0, caught = 0, clean = 0, false_alarms = 0;
  };
  std::map<std::string, Share> layers;
  std::string wrong;
  for (const Entry& e : entries_) {
    Share& share = layers[e.layer];
    const bool is_fault = !e.responsible.empty(), hit = caught(e, without), alarm = false_alarm(e, without);
    share.planted += is_fault;
    share.caught += hit;
    share.clean += !is_fault;
    share.false_alarms += alarm;
    if (is_fault && !hit)
      wrong += "ESCAPED " + e.layer + " " + e.fault + " in " + e.subject + ": to be caught by " +
               joined(e.responsible) + ", reported by " + joined(e.reported.nets) + "\n";
    if (alarm)
      wrong += "FALSE ALARM " + e.layer + " in " + e.subject + ": nothing is wrong, reported by " +
               joined(e.reported.nets) + ": " + e.reported.detail + "\n";
  }
  std::string text;
  for (const auto& [layer, share] : layers)
    text += layer + ": " + std::to_string(share.caught) + " of " + std::to_string(share.planted) +
            " faults caught (" + reports::percent(static_cast<double>(share.caught) / share.planted) + "), " +
            std::to_string(share.false_alarms) + " of " + std::to_string(share.clean) +
            " right ones reported\n";
  return text + wrong;
}

std::string KillMatrix::log() const {
  std::string text;
  for (const Entry& e : entries_)
    text += e.layer + " " + (e.responsible.empty() ? "nothing wrong" : e.fault) + " in " + e.subject + ": " +
            joined(e.reported.nets) + (e.reported.detail.empty() ? "" : " (" + e.reported.detail + ")") +
            "\n";
  return text;
}

}  // namespace fla::harness
