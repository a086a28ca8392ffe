#include "reports/run_charts.h"

#include <algorithm>
#include <map>

#include "reports/chart.h"
#include "reports/summary.h"

namespace fla::reports {

using harness::Calibration;
using harness::Result;
using harness::RunResult;

namespace {

// Timed results by operator and direction, in the order of first use.
using Groups = std::vector<std::pair<std::string, std::vector<const Result*>>>;

Groups timed_groups(const RunResult& run) {
  Groups groups;
  for (const Result& r : run.cases) {
    if (!r.timed || !(r.cold.median_us > 0)) continue;
    const std::string name = operator_name(r);
    auto group = std::find_if(groups.begin(), groups.end(), [&](const auto& g) { return g.first == name; });
    if (group == groups.end()) group = groups.insert(groups.end(), {name, {}});
    group->second.push_back(&r);
  }
  return groups;
}

std::string label_of(const Result& r) {
  std::string label =
      r.case_text + ": " + microseconds(r.cold.median_us) + " us, " + fixed(r.metrics.gbps, 0) + " GB/s";
  if (r.metrics.sol > 0) label += ", " + percent(r.metrics.sol) + " of the ceiling";
  return label;
}

std::string mix_name(const Calibration::Mix& mix) {
  return "copy " + std::to_string(mix.reads) + ":" + std::to_string(mix.writes) +
         (mix.in_place ? " in place" : "");
}

double highest(const std::vector<std::pair<double, double>>& curve) {
  double best = 0;
  for (const auto& [bytes, gbps] : curve) best = std::max(best, gbps);
  return best;
}

double best_bandwidth(const Calibration& calibration) {
  double best = 0;
  for (const Calibration::Mix& mix : calibration.mixes) best = std::max(best, highest(mix.cold));
  return best;
}

void sort_points(Series& series) {
  std::stable_sort(series.points.begin(), series.points.end(), [](auto& a, auto& b) { return a.x < b.x; });
}

}  // namespace

std::string bandwidth_chart(const RunResult& run) {
  Chart chart{"Throughput against bytes moved, cold", {"bytes", true}, {"GB/s", true}, {}};
  int style = 0;
  for (const auto& [name, results] : timed_groups(run)) {
    Series series{name, {}, style++};
    for (const Result* r : results) {
      series.points.push_back({r->metrics.bytes, r->metrics.gbps, label_of(*r), !is_believable(*r)});
    }
    chart.series.push_back(std::move(series));
  }
  if (chart.series.empty()) return "";
  for (const Calibration::Mix& mix : run.run.calibration.mixes) {
    Series roof{mix_name(mix) + ", measured", {}, style++, true, true, false};
    for (const auto& [bytes, gbps] : mix.cold) roof.points.push_back({bytes, gbps, ""});
    sort_points(roof);
    chart.series.push_back(std::move(roof));
  }
  return svg_chart(chart);
}

std::string roofline_chart(const RunResult& run) {
  Chart chart{"Roofline", {"flops per byte", true}, {"TFLOP/s", true}, {}};
  const double gbps = best_bandwidth(run.run.calibration), peak = run.run.calibration.gemm_bf16_tflops;
  double low = 0, high = 0;
  int style = 0;
  for (const auto& [name, results] : timed_groups(run)) {
    Series series{name, {}, style++};
    for (const Result* r : results) {
      const harness::Metrics& m = r->metrics;
      if (!(m.intensity > 0) || !(m.tflops > 0)) continue;
      const double roof = std::min(gbps * m.intensity / 1000, peak > 0 ? peak : gbps * m.intensity / 1000);
      series.points.push_back(
          {m.intensity, m.tflops, label_of(*r), roof > 0 && m.tflops > kBelievableShare * roof});
      low = low > 0 ? std::min(low, m.intensity) : m.intensity;
      high = std::max(high, m.intensity);
    }
    if (!series.points.empty()) chart.series.push_back(std::move(series));
  }
  if (chart.series.empty()) return "";
  Series roof{"measured roof", {}, style, true, false, false};
  const double ridge = gbps > 0 ? peak * 1000 / gbps : 0;
  roof.points.push_back({low / 2, std::min(gbps * low / 2000, peak > 0 ? peak : gbps * low / 2000), ""});
  if (ridge > low / 2) roof.points.push_back({ridge, peak, ""});
  const double end = std::max(high, ridge) * 2;
  roof.points.push_back({end, peak > 0 ? peak : gbps * end / 1000, ""});
  if (gbps > 0) chart.series.push_back(std::move(roof));
  return svg_chart(chart);
}

// A dashed series per peer, at the sizes where it was measured under our cold conditions.
static void add_peer_series(Chart& chart, const std::vector<const Result*>& results, const Peers& peers) {
  std::map<std::string, Series> by_peer;
  for (const Result* r : results) {
    for (const PeerRow& row : peers_of(*r, peers)) {
      if (row.hot) continue;
      const std::string label = row.peer + " " + r->case_text + ": " + microseconds(row.us) + " us";
      by_peer[row.peer].points.push_back({r->metrics.bytes, row.us, label});
    }
  }
  int style = 1;
  for (auto& [name, series] : by_peer) {
    series.name = name;
    series.style = style++;
    series.has_line = series.is_dashed = true;
    sort_points(series);
    chart.series.push_back(std::move(series));
  }
}

std::string scaling_charts(const RunResult& run, const Peers* peers) {
  std::string text;
  for (const auto& [name, results] : timed_groups(run)) {
    if (results.size() < 2) continue;
    Chart time{name + ": time, cold", {"bytes", true}, {"us", true}, {{"fla", {}, 0, true}}};
    Chart share{name + ": share of the measured ceiling, cold",
                {"bytes", true},
                {"%", false},
                {{"fla", {}, 0, true}}};
    for (const Result* r : results) {
      time.series[0].points.push_back({r->metrics.bytes, r->cold.median_us, label_of(*r)});
      if (!(r->metrics.sol > 0)) continue;
      share.series[0].points.push_back(
          {r->metrics.bytes, 100 * r->metrics.sol, label_of(*r), !is_believable(*r)});
    }
    sort_points(time.series[0]);
    sort_points(share.series[0]);
    if (peers) add_peer_series(time, results, *peers);
    text += svg_chart(time) + svg_chart(share);
  }
  return text;
}

std::string memory_bars(const RunResult& run) {
  std::vector<std::pair<std::string, const Result*>> largest;
  for (const Result& r : run.cases) {
    if (r.memory.peak <= 0) continue;
    const std::string name = operator_name(r);
    const auto it =
        std::find_if(largest.begin(), largest.end(), [&](const auto& l) { return l.first == name; });
    if (it == largest.end()) largest.emplace_back(name, &r);
    else if (r.memory.peak > it->second->memory.peak) it->second = &r;
  }
  std::vector<Bar> bars;
  for (const auto& [name, r] : largest) {
    const harness::Memory& m = r->memory;
    bars.push_back({name,
                    {double(m.inputs), double(m.outputs), double(m.saved), double(m.workspace)},
                    byte_count(m.peak) + " peak"});
  }
  return svg_bars({"inputs", "outputs", "saved", "workspace"}, bars);
}

}  // namespace fla::reports
