#include "harness/bench.h"

#include <algorithm>
#include <cmath>
#include <stdexcept>

#include "harness/check.h"
#include "harness/evaluate.h"
#include "harness/host_timing.h"
#include "harness/sample.h"
#include "harness/traffic.h"
#include "harness/trial.h"
#include "harness/verdict.h"
#include "kernels/common/gemm.h"

namespace fla::harness {
namespace {

constexpr int kMostSets = 64;             // argument sets of a cold run
constexpr double kShortestSample = 200;   // microseconds of one replay
constexpr int64_t kHotLimit = 64 << 20;   // larger problems do not fit the cache
constexpr int64_t kStaleLimit = 256 << 20;

// Launches in one graph: long enough for the events, and every argument set equally often.
int calls_for(int64_t bytes, double flops, int sets) {
  const double guess_us = 1.5 + static_cast<double>(bytes) / 4e6 + flops / 7e8;
  const int calls = std::clamp(static_cast<int>(std::ceil(kShortestSample / guess_us)), flops > 0 ? 1 : 3, 400);
  return (calls + sets - 1) / sets * sets;
}

struct State {  // cold or hot
  int sets = 1;
  std::unique_ptr<Replay> ours, ceiling;
};

using Products = std::vector<detail::GemmRecorder::Call>;

class Bench {
 public:
  Bench(const Case& c, Device& device, Timer& timer, const RunInfo& run, const BenchOptions& options, Result& r)
      : device_(device), timer_(timer), options_(options), problem_(make_timed_problem(c)), traffic_(traffic_of(problem_)), r_(r) {
    const int sets = rotation_for(traffic_.bytes(), run.l2_bytes, kMostSets);
    cold_.sets = options.cold ? sets : 0;
    hot_.sets = options.hot && (sets == 0 || traffic_.bytes() <= kHotLimit) ? 1 : 0;
    if (cold_.sets == 0 && hot_.sets == 0) hot_.sets = 1;  // one of the two is always measured
  }

  void run() {
    for (int i = 0; i < std::max(cold_.sets, 1); ++i) {
      trials_.push_back(std::make_unique<Trial>(problem_, device_));
      trials_.back()->prepare(Poison::nan, problem_);
    }
    account(*trials_[0], r_.memory);
    note_products();
    timer_.reserve(static_cast<size_t>(std::max(cold_.sets, 1)) * static_cast<size_t>(traffic_.stream_bytes()) *
                   static_cast<size_t>(traffic_.reads + traffic_.writes));
    const bool check_stale = traffic_.bytes() <= kStaleLimit && !in_place();
    Snapshot proven;
    if (check_stale) proven = trials_[0]->run(Poison::nan, problem_);
    std::vector<Replay*> subjects;
    for (State* s : {&cold_, &hot_}) {
      if (s->sets == 0) continue;
      capture(*s);
      subjects.push_back(s->ours.get());
      subjects.push_back(s->ceiling.get());
    }
    const std::vector<Timing> timings = sample_in_turns(timer_, subjects, options_.sampling);
    record(timings);
    if (check_stale) {
      trials_[0]->prepare(Poison::large, problem_);
      timer_.sample_us(cold_.ours ? *cold_.ours : *hot_.ours);
      device_.synchronize();
      if (const std::string where = difference(problem_, proven, trials_[0]->buffers.read()); !where.empty()) {
        r_.timed = false;
        r_.checks.push_back(verdict("stale", where));
        r_.status = CaseStatus::failed;
        r_.reason = "stale: after the timed replays " + where;
        return;
      }
    }
    if (traffic_.bytes() <= kHotLimit) time_calls();
  }

 private:
  bool in_place() const {
    for (const Field& f : problem_.signature.fields)
      if (f.role == Role::inout && problem_.args.tensor(f)) return true;
    return std::any_of(problem_.layouts.begin(), problem_.layouts.end(), [](const Layout& l) { return !l.alias_of.empty(); });
  }

  void capture(State& s) {
    const int calls = calls_for(traffic_.bytes(), flops_of_products(), s.sets);
    s.ours = timer_.capture(calls, [&](Stream stream, int i) {
      const Status status = trials_[static_cast<size_t>(i % s.sets)]->launch(stream);
      if (!status.ok()) throw std::runtime_error(status.text);
    });
    s.ceiling = timer_.capture(calls, [&](Stream stream, int i) {
      if (!products_.empty()) return enqueue_products(stream, products_[static_cast<size_t>(i % s.sets)]);
      timer_.enqueue_copy(stream, traffic_.reads, traffic_.writes, static_cast<size_t>(traffic_.stream_bytes()), i % s.sets);
    });
  }

  // What matrix products each set's call asks for, on which operands: beside an operator made of them, they alone are
  // the ceiling, with the numbers that the call left in its workspace.
  void note_products() {
    for (const auto& trial : trials_) {
      detail::GemmRecorder recorder;
      const Status status = trial->launch(device_.stream(0));
      device_.synchronize();
      if (!status.ok()) throw std::runtime_error(status.text);
      products_.push_back(std::move(recorder.calls));
    }
    if (products_[0].empty()) products_.clear();
  }

  static void enqueue_products(Stream stream, const Products& products) {
    for (const auto& call : products)
      if (const Status status = detail::gemm(call.gemm, call.workspace, stream); !status.ok())
        throw std::runtime_error(status.text);
  }

  double flops_of_products() const {
    double flops = 0;
    if (products_.empty()) return flops;
    for (const auto& [g, workspace] : products_[0])
      flops += 2.0 * static_cast<double>(g.m()) * static_cast<double>(g.n()) * static_cast<double>(g.k());
    return flops;
  }

  void record(const std::vector<Timing>& timings) {
    size_t next = 0;
    Metrics& m = r_.metrics;
    m.bytes = static_cast<double>(traffic_.bytes());
    m.mix = traffic_.mix();
    if (!products_.empty()) {
      m.products = static_cast<int64_t>(products_[0].size());
      m.flops = flops_of_products();
    }
    if (const auto flops = problem_.origin.direction->flops) m.flops = flops(problem_.args.get());
    if (cold_.sets > 0) {
      r_.cold = timings[next];
      m.ceiling_us = timings[next + 1].median_us;
      m.sol = m.ceiling_us / r_.cold.median_us;
      next += 2;
    }
    if (hot_.sets > 0) {
      r_.hot = timings[next];
      m.sol_hot = timings[next + 1].median_us / r_.hot.median_us;
      if (cold_.sets == 0) m.ceiling_us = timings[next + 1].median_us;
    }
    const double us = cold_.sets > 0 ? r_.cold.median_us : r_.hot.median_us;
    m.gbps = m.bytes / us / 1e3;
    m.tflops = m.flops / us / 1e6;
    m.intensity = m.bytes > 0 ? m.flops / m.bytes : 0;
    r_.power = timer_.power();
    r_.timed = true;
    if (m.sol > kImplausible)
      r_.reason = "implausible: faster than its ceiling alone, something was skipped or cached";
  }

  void time_calls() {
    Trial& trial = *trials_[0];
    const Stream stream = device_.stream(0);
    // A few hundred calls fit the launch queue; beyond that the host waits for the device.
    int calls = 0;
    const Timing t = time_on_host(r_.key, [&] {
      (void)trial.launch(stream).ok();
      if (++calls % 256 == 0) device_.synchronize();
    }, 0.02, 3);
    device_.synchronize();
    r_.launch_us = t.median_us;
  }

  Device& device_;
  Timer& timer_;
  const BenchOptions& options_;
  Problem problem_;
  const Traffic traffic_;
  Result& r_;
  State cold_, hot_;
  std::vector<std::unique_ptr<Trial>> trials_;
  std::vector<Products> products_;  // of every trial; empty where the operator has none
};

// Weights beyond this many elements, of which no rows can be sampled, take the reference a minute and more; the suite's
// full tier proves the same products at sizes that it can.
constexpr int64_t kProvableElements = int64_t{1} << 25;

bool is_provable(const Case& c) {
  const Problem shapes = make_problem(c, false);
  return std::none_of(shapes.signature.fields.begin(), shapes.signature.fields.end(), [&](const Field& f) {
    const Tensor& t = shapes.args.tensor(f);
    return t && sample_axis_of(shapes, f) < 0 && count(t) > kProvableElements;
  });
}

}  // namespace

Result bench_case(const Case& c, Device& device, Timer& timer, const RunInfo& run, const BenchOptions& options) {
  CheckOptions proof;
  proof.determinism = proof.rejects = proof.extras = false;
  Result r = begin_result(c, device.backend());
  try {
    const bool proves = !options.unproven && (options.prove_large || is_provable(c));
    if (proves) r = check_case(c, device, proof);
    else r.status = CaseStatus::passed;
    if (!proves && !options.unproven) r.reason = "timed without a proof at this size (--prove-large)";
    if (r.status == CaseStatus::passed) Bench(c, device, timer, run, options, r).run();
  } catch (const OutOfMemory& e) {
    r.status = CaseStatus::skipped;
    r.reason = "needs " + std::to_string(e.need >> 20) + " MiB, " + std::to_string(e.free >> 20) + " MiB are free";
  } catch (const DeviceLost&) {
    throw;
  } catch (const std::exception& e) {
    r.status = CaseStatus::failed;
    r.reason = e.what();
  }
  return r;
}

Result bench_reference(const Case& c, const BenchOptions&) {
  Result r = begin_result(c, "reference");
  const Problem p = sampled(make_problem(c));
  Evaluation<double> e = inputs_as<double>(p);
  r.hot = time_on_host(r.key, [&] { evaluate(p, e); }, 0.02, 3);
  const Traffic traffic = traffic_of(p);
  r.metrics.bytes = static_cast<double>(traffic.bytes());
  r.metrics.mix = traffic.mix();
  r.metrics.gbps = r.hot.median_us > 0 ? r.metrics.bytes / r.hot.median_us / 1e3 : 0;
  r.timed = true;
  r.status = CaseStatus::passed;
  return r;
}

Calibration calibrate(Timer& timer, const RunInfo& run) {
  Calibration c;
  SamplingOptions quick;
  quick.rounds = 1;
  quick.time_limit_s = 0.05;
  auto time_of = [&](int calls, const std::function<void(Stream, int)>& work) {
    const auto replay = timer.capture(calls, work);
    return sample_in_turns(timer, {replay.get()}, quick)[0].median_us;
  };
  c.graph_step_us = time_of(200, [&](Stream s, int) { timer.enqueue_nothing(s); });
  for (const auto& [reads, writes] : {std::pair{1, 1}, {1, 0}, {0, 1}, {2, 1}, {3, 1}, {3, 2}, {2, 2}}) {
    Calibration::Mix mix;
    mix.reads = reads;
    mix.writes = writes;
    const bool curve = reads == 1 && writes == 1;
    for (const int64_t mib : {8, 32, 128, 512, 1024}) {
      if (!curve && mib != 512) continue;
      const int64_t stream = (mib << 20) / (reads + writes) / 16 * 16;
      const int sets = rotation_for(mib << 20, run.l2_bytes, 64);
      timer.reserve(static_cast<size_t>(std::max(sets, 1)) * static_cast<size_t>(mib << 20));
      const int calls = calls_for(mib << 20, 0, std::max(sets, 1));
      const double us = time_of(calls, [&, r = reads, w = writes](Stream s, int i) {
        timer.enqueue_copy(s, r, w, static_cast<size_t>(stream), i % std::max(sets, 1));
      });
      mix.cold.emplace_back(static_cast<double>(stream * (reads + writes)), static_cast<double>(stream * (reads + writes)) / us / 1e3);
    }
    c.mixes.push_back(std::move(mix));
  }
  return c;
}

}  // namespace fla::harness
