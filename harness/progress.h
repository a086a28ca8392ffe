// One line on standard error that says how far a run is; only on a terminal.
#pragma once

#include <chrono>
#include <cstddef>

#include "harness/result.h"

namespace fla::harness {

class Progress {
 public:
  // `verbose` prints a line per finished case instead, on anything.
  Progress(size_t total, bool verbose);
  ~Progress();  // clears the line
  void finished(const Result&);

 private:
  size_t total_, done_ = 0, failures_ = 0;
  bool verbose_, shown_;
  std::chrono::steady_clock::time_point start_;
};

}  // namespace fla::harness
