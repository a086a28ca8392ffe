// One run of fla-check: selection, jobs, workers, journal, results.
#pragma once

#include <string>

#include "harness/check_backends.h"
#include "harness/check_plan.h"
#include "harness/selection.h"

namespace fla::harness {

struct CheckRunOptions {
  Selection selection;
  BackendWish backend;
  Demand demand;
  std::string devices = "all", out, junit, html, resume, replay;
  int repeat = 1, workers = 0;  // workers for emulator and references; 0: one per core
  double timeout_s = 120;
  bool verbose = false, quiet = false;
};

// Returns an exit code. Throws UsageError, reports::FormatError, NoDevice, reports::WriteError.
int run_check(const CheckRunOptions&, int argc, char** argv);

}  // namespace fla::harness
