// L3: a checker that fails itself. Every part that could turn nothing, or nonsense, into a green tick.
#include <cmath>
#include <limits>

#include "harness/check_plan.h"
#include "harness/compare.h"
#include "harness/judge.h"
#include "harness/self_test_layers.h"
#include "harness/supervisor.h"
#include "harness/verdict.h"
#include "reports/compare.h"
#include "reports/ratio.h"

namespace fla::harness {
namespace {

using reference::Bound;
constexpr double kNan = std::numeric_limits<double>::quiet_NaN();

Reported reported_if(bool noticed, const std::string& net) {
  Reported r;
  if (noticed) r.nets.insert(net);
  return r;
}
Reported reported_by(const Check& c, const std::string& net) {
  Reported r = reported_if(is_failure(c.status), net);
  r.detail = c.detail;
  return r;
}

std::vector<Bound> ramp(size_t n) {
  std::vector<Bound> y;
  for (size_t i = 0; i < n; ++i) y.emplace_back(static_cast<double>(i) + 1, 0.0);
  return y;
}
std::vector<double> values_of(const std::vector<Bound>& y) {
  std::vector<double> values;
  for (const Bound& b : y) values.push_back(b.v);
  return values;
}

// ---------------------------------------------------------------------------------------------- comparator

void plant_in_comparator(KillMatrix& matrix) {
  const auto compared = [&](const char* fault, std::vector<int64_t> size, const std::vector<double>& got,
                            const std::vector<Bound>& expected) {
    matrix.planted("L3", fault, "comparator", {"compare"},
                   reported_by(compare("y", DType::f32, size, got, expected), "compare"));
  };
  const std::vector<Bound> y = ramp(4);
  const std::vector<double> right = values_of(y);
  matrix.clean("L3", "comparator", reported_by(compare("y", DType::f32, {2, 2}, right, y), "compare"));
  std::vector<Bound> bad = y;
  bad[2].e = kNan;
  compared("bound is NaN", {4}, right, bad);
  for (const double error : {-1.0, -1e-12}) {  // the second is less than any rounding
    bad[2].e = error;
    compared("bound is negative", {4}, right, bad);
  }
  bad = y;
  bad[2].v = kNan;
  compared("answer is NaN, kernel's is not", {4}, right, bad);
  std::vector<double> wrong = right;
  wrong[3] = kNan;
  compared("kernel's answer is NaN", {4}, wrong, y);
  compared("no elements", {0}, {}, {});
  compared("fewer answers than elements", {4}, right, ramp(3));
  compared("more answers than elements", {4}, right, ramp(5));
  compared("other shape than elements", {5}, right, y);
  matrix.planted("L3", "no elements", "comparator of integers", {"compare"},
                 reported_by(compare("n", {0}, {}, std::vector<int64_t>()), "compare"));
}

void plant_in_trust(KillMatrix& matrix) {
  const auto trusted = [&](const char* fault, const std::vector<Bound>& y) {
    matrix.planted("L3", fault, "vacuity guard", {"trust"},
                   reported_by(trust("y", DType::f32, y, 0.9), "trust"));
  };
  matrix.clean("L3", "vacuity guard", reported_by(trust("y", DType::f32, ramp(100), 0.9), "trust"));
  std::vector<Bound> y = ramp(1000);
  std::fill(y.begin(), y.begin() + 950, Bound(0.0));
  trusted("nearly all answers zero", y);
  trusted("all answers equal", std::vector<Bound>(100, Bound(2.0)));
  y = ramp(100);
  y[3].e = y[4].e = reference::bound::kUnbounded;
  trusted("unlimited bounds", y);
  y = ramp(100);
  y[3].ambiguous = y[4].ambiguous = true;
  trusted("undecided answers", y);
  for (const char* text :
       {"cross_entropy.bwd:T=24,V=40,logits=f32,logit_scale=0",
        "causal_conv1d.fwd:B=2,T=0,D=24,x=f32,initial_state=f32,final_state=f32,final_state.alias=1"})
    matrix.planted("L3", "case that proves nothing", text, {"trust"},
                   harness::reported_by(check_planted(text, {}, kNumbersOnly)));
}

void plant_in_judge(KillMatrix& matrix) {
  const Problem p = make_problem(parse_case("swiglu.fwd:M=2,F=3,x=f32"));
  for (const size_t bytes : {size_t{0}, size_t{23}, size_t{25}}) {
    Snapshot snapshot;
    snapshot.bytes.resize(p.signature.fields.size());
    snapshot.bytes[static_cast<size_t>(p.index_of("z"))].resize(bytes);
    std::vector<Check> checks;
    judge(p, snapshot, checks);
    const bool noticed =
        std::any_of(checks.begin(), checks.end(), [](const Check& c) { return is_failure(c.status); });
    matrix.planted("L3", "read back too little or too much", p.origin.text(), {"judge"},
                   reported_if(noticed, "judge"));
  }
  Result nothing;
  finish_result(nothing);
  matrix.planted("L3", "result without a single check", "verdict", {"verdict"},
                 reported_if(nothing.status != CaseStatus::passed, "verdict"));
}

// ----------------------------------------------------------------------------------------- supervision, exit

Job job_of(const std::string& subject) {
  Job job;
  job.request = "check " + subject;
  job.blank.case_text = job.blank.key = job.blank.op = subject;
  job.blank.backend = "reference";
  return job;
}

void plant_in_workers(KillMatrix& matrix) {
  struct Misbehaviour {
    const char *fault, *script;
  };
  const Misbehaviour all[] = {
      {"worker exits 0 without a result", "exit 0"},
      {"worker dies", "read line; kill -SEGV $$"},
      {"worker hangs", "read line; kill -STOP $$"},
      {"worker gives half a result", "read line; printf '{\"status\":\"pas'; exit 0"},
      {"worker gives no verdict", "read line; echo '{\"reason\":\"\"}'"},
      {"worker gives nonsense", "read line; echo 'all fine'"},
      {"worker gives an unknown verdict", "read line; echo '{\"status\":\"fine\"}'"},
      {"worker cannot be started", nullptr},
  };
  const auto answer_of = [](const std::string& script) {
    SupervisorOptions options;
    options.timeout_s = 0.4;
    options.slots.push_back({{"/bin/sh", "-c", script}, true, true});
    if (script.empty()) options.slots[0].command = {"/nonexistent/worker"};
    Reported reported;
    supervise({job_of("a")}, options, [&](size_t, const Result& r) { reported = harness::reported_by(r); });
    if (!reported.nets.empty()) reported.nets = {"supervisor"};
    return reported;
  };
  matrix.clean("L3", "worker", answer_of("read line; echo '{\"status\":\"passed\"}'"));
  for (const Misbehaviour& m : all)
    matrix.planted("L3", m.fault, "supervisor", {"supervisor"}, answer_of(m.script ? m.script : ""));
}

void plant_in_exit_codes(KillMatrix& matrix) {
  const auto exit_code = [](std::vector<CaseStatus> statuses, Demand demand = {}, bool interrupted = false) {
    std::vector<Result> results(statuses.size());
    for (size_t i = 0; i < results.size(); ++i) results[i].status = statuses[i];
    return exit_code_of(results, interrupted, demand);
  };
  const auto expect = [&](const char* fault, int got, int wanted) {
    matrix.planted("L3", fault, "exit code", {"exit code"}, reported_if(got == wanted, "exit code"));
  };
  matrix.clean("L3", "exit code",
               reported_if(exit_code({CaseStatus::passed, CaseStatus::skipped}) != kPassed, "exit code"));
  expect("run without cases", exit_code({}), kNothingRan);
  expect("run that skipped everything", exit_code({CaseStatus::skipped, CaseStatus::listed}), kNothingRan);
  expect("fewer cases than asked for",
         exit_code({CaseStatus::passed}, {.allow_empty = false, .min_cases = 2}), kNothingRan);
  expect("interrupted run", exit_code({CaseStatus::passed}, {}, true), kInterrupted);
  for (const CaseStatus bad : {CaseStatus::failed, CaseStatus::mistrusted, CaseStatus::rejected,
                               CaseStatus::crashed, CaseStatus::timeout, CaseStatus::out_of_memory})
    expect("one bad case among good ones", exit_code({CaseStatus::passed, bad, CaseStatus::passed}), kFailed);
}

// ---------------------------------------------------------------------------------------------- statistics

Timing timing(double median_us) {
  Timing t;
  t.median_us = median_us;
  for (int i = 0; i < 32; ++i) t.samples_us.push_back(median_us * (1 + 0.001 * (i % 5 - 2)));
  return t;
}

RunResult run_of(const Timing& cold) {
  RunResult run;
  Result r;
  r.key = r.case_text = "swiglu.fwd:M=2,F=3";
  r.backend = "gpu";
  r.status = CaseStatus::passed;
  r.timed = true;
  r.cold = r.hot = cold;
  run.cases.push_back(r);
  return run;
}

void plant_in_statistics(KillMatrix& matrix) {
  const auto unclear = [](const Timing& before, const Timing& after) {
    const reports::Verdict v = reports::judge(reports::ratio_of_medians(before, after, 1), 0.03);
    return reported_if(v == reports::Verdict::unclear, "statistics");
  };
  const auto same = reports::judge(reports::ratio_of_medians(timing(10), timing(10), 1), 0.03);
  matrix.clean("L3", "statistics", reported_if(same != reports::Verdict::same, "statistics"));
  for (const double us : {-10.0, 0.0, kNan, std::numeric_limits<double>::infinity()}) {
    const char* fault = "clock that stands, goes backwards or is lost";
    matrix.planted("L3", fault, "statistics", {"statistics"}, unclear(timing(10), timing(us)));
    matrix.planted("L3", fault, "statistics", {"statistics"}, unclear(timing(us), timing(10)));
  }
}

void plant_in_comparison(KillMatrix& matrix) {
  const auto compared = [](const RunResult& after) {
    const reports::Comparison c = reports::compare(run_of(timing(10)), after, {});
    Reported r = reported_if(c.regression, "comparison");
    for (const reports::CaseChange& change : c.cases)
      if (!change.notes.empty()) r.nets.insert("comparison's notes");
    return r;
  };
  const auto plant = [&](const char* fault, const char* net, const RunResult& after) {
    matrix.planted("L3", fault, "comparison", {net}, compared(after));
  };
  matrix.clean("L3", "comparison", compared(run_of(timing(10))));
  plant("slower by 30 %", "comparison", run_of(timing(13)));
  RunResult after = run_of(timing(10));
  after.cases[0].memory.workspace = 1;
  plant("one byte more of workspace", "comparison", after);
  after = run_of(timing(10));
  after.cases[0].status = CaseStatus::failed;
  plant("case that fails now", "comparison", after);
  after.cases.clear();
  plant("case missing", "comparison", after);
  for (const double us : {-10.0, 0.0, kNan})
    plant("time that is none", "comparison's notes", run_of(timing(us)));
}

}  // namespace

void plant_harness_faults(KillMatrix& matrix) {
  plant_in_comparator(matrix);
  plant_in_trust(matrix);
  plant_in_judge(matrix);
  plant_in_workers(matrix);
  plant_in_exit_codes(matrix);
  plant_in_statistics(matrix);
  plant_in_comparison(matrix);
}

}  // namespace fla::harness
