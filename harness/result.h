// What one case came to. Nothing else is printed or stored; the JSON form is reports/schema.md.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace fla::harness {

enum class CaseStatus {
  passed, failed, mistrusted, rejected, crashed, timeout, out_of_memory, skipped, listed, interrupted
};
const char* name_of(CaseStatus);
bool is_failure(CaseStatus);  // everything except passed, skipped, listed, interrupted

// One check of one case: "y" (interval acceptance of a tensor), "guards", "poison", "inputs_unchanged",
// "determinism", "rejects", "workspace", "empty", "gradient:x", "relation:rows_alone", ...
struct Check {
  std::string name;
  CaseStatus status = CaseStatus::passed;
  double bound_used = 0;  // share of the allowed error, 1 = at the limit; 0 where it does not apply
  double max_error = 0, max_ulp = 0, mean_ulp = 0;
  double signed_bias = 0;  // mean signed error over mean bound: a systematic drift shows here first
  int64_t elements = 0, outside = 0;
  std::string index;       // of the worst element, "[3,0,17]"
  double got = 0, expected = 0, bound = 0;
  std::string detail;
};

struct Timing {
  double median_us = 0, q1_us = 0, q3_us = 0;
  double noise = 0;  // the larger of the spread within and between rounds, as a share of the median
  std::vector<double> samples_us, clock_mhz, round_medians_us;
  std::string stop;  // "converged", "time_limit"
  bool throttled = false;
};

struct Metrics {
  double bytes = 0, flops = 0, gbps = 0, tflops = 0, intensity = 0;
  double sol = 0, sol_hot = 0;  // share of the ceiling measured in this run; 0: not measured
  double sol_datasheet = 0;
  double ceiling_us = 0;        // its time: the same-mix copy, or the call's matrix products alone
  std::string mix;              // "2:1", reads to writes
  int64_t products = 0;         // matrix products that the call makes; 0: the ceiling is the copy
};

struct Memory {
  int64_t inputs = 0, outputs = 0, saved = 0, workspace = 0, peak = 0;
  int64_t workspace_touched = -1;  // high-water mark by poison scan, -1: not measured
  int64_t device_growth = 0;       // free device memory lost during the call
};

struct Power {
  double watts_mean = 0, watts_max = 0, temperature_max = 0;
  std::vector<std::string> throttle_reasons;
};

struct Result {
  std::string key, case_text, op, direction, tier, name;
  std::vector<std::pair<std::string, std::string>> params;
  std::string backend;  // "gpu", "emulator", "reference"
  CaseStatus status = CaseStatus::listed;
  std::string reason;   // one line, for people
  std::string repro;    // exactly one command line
  double seconds = 0;
  std::vector<Check> checks;
  bool timed = false;
  Timing cold, hot;
  double launch_us = 0;  // host time of the asynchronous call
  Power power;
  Metrics metrics;
  Memory memory;
};

struct Calibration {
  struct Mix { int reads = 1, writes = 1; bool in_place = false; std::vector<std::pair<double, double>> cold, hot; };
  std::vector<Mix> mixes;  // (bytes, GB/s) curves per mix of streams
  double gemm_bf16_tflops = 0, graph_step_us = 0, empty_launch_us = 0, event_resolution_us = 0;
};

struct RunInfo {
  std::string id, started, finished, tool, version, git_sha;  // times UTC, ISO 8601
  bool git_dirty = false;
  std::vector<std::string> argv;
  std::string build_type, compiler, cuda, flags, architectures;
  std::string device_name, device_uuid, driver;  // "cpu" for emulator and references
  int sm = 0, multiprocessors = 0;
  int64_t device_memory = 0, l2_bytes = 0;
  double sm_clock_max_mhz = 0, memory_clock_max_mhz = 0, power_limit_w = 0;
  std::string cpu, os;
  Calibration calibration;
  std::vector<std::pair<std::string, std::string>> suites;  // path, content hash
  std::string shard, seed_policy;
  std::vector<std::string> warnings;
};

struct RunResult {
  RunInfo run;
  std::vector<Result> cases;
  int exit_code = 0;
};

// Exit codes of both CLIs.
enum ExitCode { kPassed = 0, kFailed = 1, kUsage = 2, kNothingRan = 3, kRegression = 4, kInterrupted = 5,
                kSelfTestFailed = 6, kWriteFailed = 7 };

}  // namespace fla::harness
