#include "harness/host_timing.h"

#include <benchmark/benchmark.h>

#include "harness/statistics.h"

namespace fla::harness {
namespace {

// Keeps the repetitions' times instead of printing them.
class Collector : public benchmark::BenchmarkReporter {
 public:
  bool ReportContext(const Context&) override { return true; }
  void ReportRuns(const std::vector<Run>& runs) override {
    for (const Run& run : runs)
      if (run.run_type == Run::RT_Iteration)
        samples_us.push_back(run.real_accumulated_time / static_cast<double>(run.iterations) * 1e6);
  }
  std::vector<double> samples_us;
};

}  // namespace

Timing time_on_host(const std::string& name, const std::function<void()>& work, double seconds, int least) {
  benchmark::ClearRegisteredBenchmarks();
  benchmark::RegisterBenchmark(name.c_str(), [&](benchmark::State& state) {
    for (auto _ : state) work();
  })
      ->Repetitions(least)
      ->MinTime(seconds / least)
      ->UseRealTime();
  Collector collector;
  benchmark::RunSpecifiedBenchmarks(&collector, ".");
  benchmark::ClearRegisteredBenchmarks();
  Timing t;
  t.samples_us = collector.samples_us;
  t.median_us = quantile(t.samples_us, 0.5);
  t.q1_us = quantile(t.samples_us, 0.25);
  t.q3_us = quantile(t.samples_us, 0.75);
  t.noise = t.median_us > 0 ? (t.q3_us - t.q1_us) / 2 / t.median_us : 0;
  t.stop = "time_limit";
  return t;
}

}  // namespace fla::harness
