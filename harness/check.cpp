#include "harness/check.h"

#include <chrono>

#include "harness/every_input.h"
#include "harness/generate.h"
#include "harness/judge.h"
#include "harness/rejects.h"
#include "harness/relations.h"
#include "harness/reruns.h"
#include "harness/verdict.h"

namespace fla::harness {
namespace {

// Reruns and relations multiply the cost of a case; beyond this many elements in the largest tensor they are
// left to the small cases of the same suite.
constexpr int64_t kSmallProblemElements = int64_t{1} << 18;
// Outputs are read back while a gate holds the stream, which gives up after two seconds.
constexpr int64_t kMostBytesReadUnderGate = int64_t{256} << 20;

// Runs one stage of the protocol. Whatever a kernel throws (the emulator reports faults so) fails the stage
// by name; a lost device and missing memory concern the whole case and go on to the caller.
template <class Stage>
void stage(std::vector<Check>& checks, const std::string& name, Stage body) {
  try {
    checks.push_back(body());
  } catch (const DeviceLost&) {
    throw;
  } catch (const OutOfMemory&) {
    throw;
  } catch (const std::exception& e) {
    checks.push_back(verdict(name, e.what()));
  }
}

// The first run, its nets and its numbers. False when nothing further can be learnt.
bool check_first_run(Trial& trial, Result& r, Snapshot& first) {
  trial.prepare(Poison::nan);
  const auto free_before = static_cast<int64_t>(trial.device.free_bytes());
  Status status;
  try {
    status = trial.launch(trial.device.stream(0));
    trial.device.synchronize();
  } catch (const DeviceLost&) {
    throw;
  } catch (const std::exception& e) {
    r.checks.push_back(verdict("kernel", e.what()));
    finish_result(r);
    return false;
  }
  if (r.backend == "gpu")
    r.memory.device_growth = free_before - static_cast<int64_t>(trial.device.free_bytes());
  if (!status.ok()) {
    r.status = CaseStatus::rejected;
    r.reason = std::string(name_of(status.code)) + ": " + status.text;
    return false;
  }
  r.checks.push_back(verdict("guards", trial.damage()));
  r.checks.push_back(verdict("inputs_unchanged", trial.buffers.changed_input()));
  first = trial.buffers.read();
  judge(sampled(trial.problem), first, r.checks);
  return true;
}

// The second run has other guards and gaps, so its nets see what the first pair hid by chance.
void check_second_run(Trial& trial, Result& r, const Snapshot& first) {
  stage(r.checks, "poison", [&] {
    Check c = check_poison(trial, first);
    if (c.detail.empty()) c = verdict("poison", trial.damage());
    if (c.detail.empty()) c = verdict("poison", trial.buffers.changed_input());
    return c;
  });
  r.memory.workspace_touched = trial.workspace_touched();
}

}  // namespace

Result check_case(const Case& c, Device& device, const CheckOptions& options) {
  if (fill_of(c) == Fill::every) return check_every_input(c, device);
  const auto start = std::chrono::steady_clock::now();
  Result r = begin_result(c, device.backend());
  const Problem problem = make_problem(c);
  Trial trial(problem, device);
  account(trial, r.memory);
  Snapshot first;
  const bool ran = check_first_run(trial, r, first);
  if (ran) check_second_run(trial, r, first);

  const bool small = problem.sample.empty() && largest_tensor(problem) <= kSmallProblemElements;
  if (ran && options.repeat > 1)
    stage(r.checks, "repeat", [&] { return check_repeat(trial, first, options.repeat - 1); });
  const bool gpu = device.backend() == "gpu";
  if (ran && options.determinism && (small || gpu))
    stage(r.checks, "determinism", [&] { return check_determinism(trial, first); });
  // Elsewhere calls have ended when they return.
  if (ran && options.determinism && gpu && problem.bytes <= kMostBytesReadUnderGate)
    stage(r.checks, "asynchrony", [&] { return check_asynchrony(trial, first); });
  if (ran && options.extras) {
    stage(r.checks, "workspace", [&] { return check_workspace(trial); });
    if (small) stage(r.checks, "graph", [&] { return check_graph(trial, first); });
    if (small) stage(r.checks, "dropped_outputs", [&] { return check_dropped_outputs(trial, first); });
    if (small) stage(r.checks, "empty", [&] { return check_empty(problem, device); });
    const auto rows = problem.dims.find(c.direction->sample_dim);
    if (small && c.direction->batch_invariant && rows != problem.dims.end() && rows->second > 1)
      stage(r.checks, "relation:rows_alone", [&] { return check_rows_alone(problem, device, first); });
  }
  if (ran && options.extras && c.direction->unfused)
    stage(r.checks, "relation:unfused", [&] { return check_unfused(trial, first); });
  if (ran && options.rejects && small) stage(r.checks, "rejects", [&] { return check_rejects(trial); });
  if (ran) finish_result(r);
  r.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return r;
}

}  // namespace fla::harness
