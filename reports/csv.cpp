#include "reports/csv.h"

#include <charconv>
#include <vector>

#include "reports/escape.h"
#include "reports/summary.h"

namespace fla::reports {

using harness::Result;

static std::string exact(double value) {
  char text[32];
  const auto [end, error] = std::to_chars(text, text + sizeof text, value);
  return error == std::errc{} ? std::string(text, end) : "";
}

static std::string measured(double value) { return value > 0 ? exact(value) : ""; }

static std::string line_of(const std::vector<std::string>& cells) {
  std::string line;
  for (size_t i = 0; i < cells.size(); ++i) line += (i ? "," : "") + escape_csv(cells[i]);
  return line + "\n";
}

static std::vector<std::string> cells_of(const Result& r, const Peers* peers) {
  const harness::Metrics& m = r.metrics;
  const harness::Memory& memory = r.memory;
  const auto versus = peers ? fastest_peer(r, *peers) : std::nullopt;
  std::vector<std::string> cells{r.case_text,
                                 r.op,
                                 r.direction,
                                 r.tier,
                                 r.name,
                                 r.backend,
                                 harness::name_of(r.status),
                                 r.reason,
                                 exact(r.seconds),
                                 exact(worst_bound_used(r))};
  for (const double value :
       {r.cold.median_us, r.cold.q1_us, r.cold.q3_us, r.cold.noise, r.hot.median_us, r.launch_us, m.bytes,
        m.flops, m.gbps, m.tflops, m.sol, m.sol_hot, m.sol_datasheet}) {
    cells.push_back(measured(value));
  }
  for (const int64_t bytes : {memory.inputs, memory.outputs, memory.saved, memory.workspace, memory.peak}) {
    cells.push_back(std::to_string(bytes));
  }
  cells.push_back(versus ? versus->peer.peer : "");
  cells.push_back(versus ? exact(versus->peer.us) : "");
  cells.push_back(versus ? exact(versus->speedup) : "");
  return cells;
}

std::string csv_table(const harness::RunResult& run, const Peers* peers) {
  std::string text =
      line_of({"case",        "operator",        "direction",     "tier",        "name",
               "backend",     "status",          "reason",        "seconds",     "bound_used",
               "cold_us",     "cold_q1_us",      "cold_q3_us",    "noise",       "hot_us",
               "launch_us",   "bytes",           "flops",         "gbps",        "tflops",
               "sol",         "sol_hot",         "sol_datasheet", "input_bytes", "output_bytes",
               "saved_bytes", "workspace_bytes", "peak_bytes",    "peer",        "peer_us",
               "speedup"});
  for (const Result& r : run.cases) text += line_of(cells_of(r, peers));
  return text;
}

}  // namespace fla::reports
