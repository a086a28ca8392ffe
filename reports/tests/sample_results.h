// Records for the tests: one with every field set to something of its own, and plain ones.
#pragma once

#include <cmath>
#include <limits>

#include "harness/result.h"

namespace fla::reports {

inline harness::Timing sample_timing(double us) {
  harness::Timing t;
  t.median_us = us;
  t.q1_us = us * 0.99;
  t.q3_us = us * 1.02;
  t.noise = 0.01;
  t.samples_us = {us * 0.99, us, us * 1.02};
  t.clock_mhz = {1980, 1975, 1980};
  t.round_medians_us = {us, us * 1.001};
  t.stop = "converged";
  t.throttled = true;
  return t;
}

inline harness::Check sample_check() {
  harness::Check c;
  c.name = "y";
  c.status = harness::CaseStatus::failed;
  c.bound_used = std::numeric_limits<double>::infinity();
  c.max_error = 0.1;
  c.max_ulp = 3;
  c.mean_ulp = 0.25;
  c.signed_bias = -0.5;
  c.elements = int64_t{1} << 40;
  c.outside = 2;
  c.index = "[3,0,17]";
  c.got = std::nan("");
  c.expected = -std::numeric_limits<double>::infinity();
  c.bound = 1e-300;
  c.detail = "first of 2";
  return c;
}

inline harness::Result sample_result() {
  harness::Result r;
  r.key = "rms_norm.bwd:M=16384,N=4096,x=bf16";
  r.case_text = "rms_norm.bwd:M=16384,N=4096,x=bf16,seed=7";
  r.op = "rms_norm";
  r.direction = "bwd";
  r.tier = "bench";
  r.name = "llama3-8b";
  r.params = {{"M", "16384"}, {"N", "4096"}, {"x", "bf16"}, {"seed", "7"}};
  r.backend = "gpu";
  r.status = harness::CaseStatus::failed;
  r.reason = "y: 2 elements outside the bound";
  r.repro = "fla-check rms_norm.bwd:M=16384,N=4096,x=bf16,seed=7";
  r.seconds = 1.5;
  r.checks = {sample_check()};
  r.timed = true;
  r.cold = sample_timing(200);
  r.hot = sample_timing(180);
  r.launch_us = 2.5;
  r.power = {500, 690, 61, {"power cap"}};
  r.metrics = {4e8, 1e9, 1990, 5, 2.5, 0.9, 0.8, 0.4, 180, "2:1", 3};
  r.memory = {1, 2, 3, 4, 10, 0, 5};
  return r;
}

inline harness::RunInfo sample_run_info() {
  harness::RunInfo r;
  r.id = "20261123-041200";
  r.started = "2026-11-23T04:12:00Z";
  r.finished = "2026-11-23T04:13:00Z";
  r.tool = "fla-bench";
  r.version = "0.1.0";
  r.git_sha = "0123456789abcdef";
  r.git_dirty = true;
  r.argv = {"fla-bench", "--tier", "bench"};
  r.build_type = "Release";
  r.compiler = "g++ 12.2";
  r.cuda = "13.0";
  r.flags = "-O3";
  r.architectures = "90a";
  r.device_name = "NVIDIA H200";
  r.device_uuid = "GPU-1";
  r.driver = "580.159.04";
  r.sm = 90;
  r.multiprocessors = 132;
  r.device_memory = 150000000000;
  r.l2_bytes = 60 << 20;
  r.sm_clock_max_mhz = 1980;
  r.memory_clock_max_mhz = 3201;
  r.power_limit_w = 700;
  r.cpu = "Xeon";
  r.os = "Debian 12";
  r.calibration.mixes = {{2, 1, true, {{8e6, 1971}, {2e9, 4241}}, {{8e6, 5000}}}};
  r.calibration.gemm_bf16_tflops = 768;
  r.calibration.graph_step_us = 1.1;
  r.calibration.empty_launch_us = 2.2;
  r.calibration.event_resolution_us = 0.5;
  r.suites = {{"suites/rms_norm.json", "af63bd4c8601b7df"}, {"suites/swiglu.json", "0"}};
  r.shard = "1/2";
  r.seed_policy = "from the case";
  r.warnings = {"clocks are not locked"};
  return r;
}

inline harness::Result passed_result(const std::string& op, const std::string& case_text) {
  harness::Result r;
  r.key = r.case_text = case_text;
  r.op = op;
  r.direction = "fwd";
  r.backend = "gpu";
  r.status = harness::CaseStatus::passed;
  r.repro = "fla-check " + case_text;
  r.seconds = 0.25;
  harness::Check check;
  check.name = "y";
  check.bound_used = 0.31;
  check.elements = 128;
  r.checks = {check};
  return r;
}

inline harness::RunResult sample_run() {
  harness::RunResult run;
  run.run = sample_run_info();
  run.cases = {passed_result("swiglu", "swiglu.fwd:M=2,F=3"), sample_result()};
  run.exit_code = harness::kFailed;
  return run;
}

}  // namespace fla::reports
