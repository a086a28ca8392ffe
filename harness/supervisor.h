// Runs jobs in worker processes, so that no case can take the run along: a worker that crashes, hangs, loses
// its device or gives no readable answer costs one case. The supervisor itself never touches a device.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "harness/result.h"

namespace fla::harness {

struct Job {
  std::string request;  // the line that a worker is sent
  Result blank;         // identity, backend and repro; the answer fills in the rest
  bool needs_device = false;
};

struct WorkerSlot {
  std::vector<std::string> command;
  bool device_jobs = true, host_jobs = true;
};

struct SupervisorOptions {
  std::vector<WorkerSlot> slots;
  double timeout_s = 120;         // per case
  int crashes_to_quarantine = 3;  // crashes and time-outs of one operator on one backend
};

// Calls done(index, result) once per job, in the order in which they finish. Returns false when a signal
// stopped the run: jobs in flight are then `interrupted`, the others are not reported.
bool supervise(const std::vector<Job>&, const SupervisorOptions&,
               const std::function<void(size_t, const Result&)>& done);

// The answer's verdict and measurements under the identity of `blank`.
Result with_identity(const Result& blank, Result answer);

// While one exists, SIGINT and SIGTERM only raise a flag.
class StopSignals {
 public:
  StopSignals();
  ~StopSignals();
  StopSignals(const StopSignals&) = delete;
  StopSignals& operator=(const StopSignals&) = delete;
  static bool raised();
};

}  // namespace fla::harness
