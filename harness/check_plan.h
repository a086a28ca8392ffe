// From selected cases to jobs, and from their results to an exit code.
#pragma once

#include <string>
#include <vector>

#include "harness/case.h"
#include "harness/supervisor.h"

namespace fla::harness {

// The case as far as a reference can tell: without layouts, aliases and hostile contents (the keys with a
// dot).
Case reference_case(const Case&);

struct PlanOptions {
  std::string kernel_backend;  // "gpu", "emulator"; empty: no kernels
  bool references = false;
  int repeat = 1;
  int differences = 4;  // so many cases of every operator have their gradients proved by differences too
};

// A job per case for the kernels, then one per distinct reference case.
std::vector<Job> plan_jobs(const std::vector<Case>&, const PlanOptions&);

// Names the case and how to repeat it; nothing has run yet.
Result blank_result(const Case&, const std::string& backend, int repeat);

struct Demand {
  bool allow_empty = false;
  int min_cases = 0;  // executed ones
};
// A run that executed nothing is not a run that passed.
int exit_code_of(const std::vector<Result>&, bool interrupted, const Demand&);

}  // namespace fla::harness
