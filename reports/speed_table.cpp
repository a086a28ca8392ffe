#include "reports/speed_table.h"

#include <algorithm>

#include "reports/json.h"
#include "reports/summary.h"

namespace fla::reports {

using harness::Result;

namespace {

bool is_shown(const Result& r) {
  return r.timed && r.backend == "gpu" && r.status == harness::CaseStatus::passed && r.cold.median_us > 0;
}

bool is_gradient_pair(const Result& r) { return r.direction == "fwd" || r.direction == "bwd"; }

// Suites list the options of a direction in its own order.
bool same_parameters(const Result& a, const Result& b) {
  return std::is_permutation(a.params.begin(), a.params.end(), b.params.begin(), b.params.end());
}

struct Row {
  const Result* first = nullptr;  // forward, or what is neither forward nor backward
  const Result* backward = nullptr;

  const Result& any() const { return first ? *first : *backward; }
  bool takes(const Result& r) const {
    if (r.op != any().op || is_gradient_pair(r) != is_gradient_pair(any())) return false;
    return is_gradient_pair(r) || r.direction == any().direction;
  }
};

std::vector<Row> rows_of(const std::vector<harness::RunResult>& runs) {
  std::vector<Row> rows;
  for (const harness::RunResult& run : runs) {
    for (const Result& r : run.cases) {
      if (!is_shown(r)) continue;
      auto row = std::find_if(rows.begin(), rows.end(), [&](const Row& known) { return known.takes(r); });
      if (row == rows.end()) row = rows.insert(rows.end(), Row{});
      else if (!same_parameters(row->any(), r)) continue;
      const Result*& place = r.direction == "bwd" ? row->backward : row->first;
      if (!place) place = &r;
    }
  }
  return rows;
}

void add_time(std::vector<std::string>& cells, const Result* r) {
  cells.push_back(r ? microseconds(r->cold.median_us) : "");
  cells.push_back(r && r->metrics.sol > 0 ? percent(r->metrics.sol) : "");
}

std::string fastest_text(const Result* r, const Peers& peers) {
  if (!r) return "";
  const auto rows = peers_of(*r, peers);  // fastest first
  const auto cold = std::find_if(rows.begin(), rows.end(), [](const PeerRow& row) { return !row.hot; });
  return cold == rows.end() ? "" : microseconds(cold->us) + " " + cold->peer;
}

}  // namespace

std::string speed_table(const std::vector<harness::RunResult>& runs, const Peers* peers) {
  Table table{{{"operator"}, {"case"}, {"µs", true}, {"of the ceiling", true}, {"backward µs", true},
               {"of the ceiling", true}},
              {}};
  if (peers) {
    table.columns.push_back({"fastest other, µs", true});
    table.columns.push_back({"backward", true});
  }
  for (const Row& row : rows_of(runs)) {
    const Result& r = row.any();
    std::vector<std::string> cells{is_gradient_pair(r) ? r.op : operator_name(r), shape_text(r)};
    add_time(cells, row.first);
    add_time(cells, row.backward);
    if (peers) {
      cells.push_back(fastest_text(row.first, *peers));
      cells.push_back(fastest_text(row.backward, *peers));
    }
    table.rows.push_back(std::move(cells));
  }
  return markdown(table);
}

std::string with_block(std::string_view text, const std::string& name, std::string_view block) {
  const std::string begin = "<!-- " + name + ":begin -->\n", end = "<!-- " + name + ":end -->";
  const size_t from = text.find(begin), to = text.find(end);
  const bool is_there = from != text.npos && to != text.npos && from + begin.size() <= to;
  if (!is_there || text.find(begin, from + 1) != text.npos || text.find(end, to + 1) != text.npos)
    throw FormatError("expected the lines \"" + begin.substr(0, begin.size() - 1) + "\" and \"" + end + "\" once each");
  return std::string(text.substr(0, from + begin.size())) + std::string(block) + std::string(text.substr(to));
}

}  // namespace fla::reports
