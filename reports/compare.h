// `fla-bench compare OLD NEW`: is anything worse than before?
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "harness/result.h"
#include "reports/ratio.h"
#include "reports/text_table.h"

namespace fla::reports {

struct CompareOptions {
  double threshold = 0.03;  // of the time; below small_us at least small_threshold
  double small_threshold = 0.10;
  double small_us = 10;
  bool force = false;          // compare runs of different devices, drivers or build types
  bool allow_missing = false;  // cases of the old run may be absent or skipped in the new one
  uint64_t seed = 1;           // of the bootstrap
};

struct TimeChange {
  std::string cache;  // "cold", "hot"
  double before_us = 0, after_us = 0;
  Ratio ratio;
  Verdict verdict = Verdict::unclear;
  bool clocks_differ = false;  // unclear because time and clock cycles disagree
};

struct CaseChange {
  std::string id;  // the key, followed by the backend when it is not the GPU
  harness::CaseStatus before = harness::CaseStatus::passed, after = harness::CaseStatus::passed;
  std::vector<TimeChange> times;
  std::vector<std::string> notes;  // "workspace 0 B -> 256 B", "bound used 0.20 -> 0.55"
  bool regression = false;
};

struct Comparison {
  bool refused = false;                  // the runs do not compare; nothing else is filled in
  std::vector<std::string> differences;  // between the runs: device, driver, build, suites
  std::vector<CaseChange> cases;         // status changes first, then regressions, then by ratio
  std::vector<std::string> missing, added;
  bool regression = false;
};

// Joins on key and backend. A regression is: a passing case that passes no longer, a time judged slower, one
// more byte of workspace or of saved tensors, a share of the error bound more than doubled, a missing case.
// The CLI turns `refused` into kUsage and `regression` into kRegression.
Comparison compare(const harness::RunResult& before, const harness::RunResult& after, const CompareOptions&);

// Only what changed or is unclear.
Table comparison_table(const Comparison&);
// "12 times compared: 1 faster, 0 slower, 10 same, 1 unclear; geometric mean 0.99 over 12, worst 1.02 (...)."
std::string comparison_sentence(const Comparison&);
std::string comparison_markdown(const Comparison&);
std::string comparison_json(const Comparison&);

}  // namespace fla::reports
