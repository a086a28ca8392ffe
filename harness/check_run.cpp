#include "harness/check_run.h"

#include <unistd.h>

#include <algorithm>
#include <climits>
#include <cstdlib>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <thread>

#include "harness/device_lock.h"
#include "harness/progress.h"
#include "harness/replay.h"
#include "harness/run_info.h"
#include "harness/worker_process.h"
#include "reports/annotations.h"
#include "reports/console.h"
#include "reports/escape.h"
#include "reports/html.h"
#include "reports/journal.h"
#include "reports/junit.h"
#include "reports/summary.h"

namespace fla::harness {
namespace {

using reports::Journal;
using reports::WriteError;

void warn(const std::string& text) {
  std::fprintf(stderr, "fla-check: %s\n", reports::one_line(text).c_str());
}

// "x.partial.jsonl" -> "x.json"
std::string result_path_of(const std::string& journal) {
  const std::string ending = ".partial.jsonl";
  if (journal.size() <= ending.size() ||
      journal.compare(journal.size() - ending.size(), ending.size(), ending) != 0)
    throw UsageError("--resume", "'" + journal + "' is not a NAME.partial.jsonl; say --out too");
  return journal.substr(0, journal.size() - ending.size()) + ".json";
}

class CheckRun {
 public:
  CheckRun(const CheckRunOptions& options, Backends backends, RunInfo run)
      : options_(options), backends_(std::move(backends)), run_(std::move(run)) {
    if (!backends_.kernels.empty()) set_device(run_, backends_.device.run);
    if (!backends_.note.empty()) run_.warnings.push_back(backends_.note);
    out_ = options.out.empty() && !options.resume.empty() ? result_path_of(options.resume) : options.out;
  }

  int run() {
    plan();
    results_.resize(jobs_.size());
    StopSignals stop;
    open_journal();
    if (!backends_.note.empty()) warn(backends_.note);
    const bool complete = execute();
    return conclude(!complete);
  }

 private:
  void plan() {
    if (!options_.replay.empty()) return plan_replay();
    SelectedCases selected = select_cases(options_.selection);
    run_.suites = selected.sources;
    run_.seed_policy = selected.seed_policy;
    run_.shard = options_.selection.shard;
    if (options_.selection.seed == "random") warn("seed " + selected.seed_policy);
    jobs_ = plan_jobs(selected.cases, {backends_.kernels, backends_.references, options_.repeat,
                                      options_.selection.tier == "nightly" ? INT_MAX : PlanOptions().differences});
  }

  // Read here too, so that a bad file is bad usage and not a failed case.
  void plan_replay() {
    const Case c = read_replay(TensorFile(options_.replay), false).problem.origin;
    const std::string backend = backends_.kernels.empty() ? "reference" : backends_.kernels;
    Job job{"replay " + options_.replay, blank_result(c, backend, 1), !backends_.kernels.empty()};
    job.blank.repro = "fla-check --replay " + options_.replay + " --backend " + backend;
    jobs_.push_back(std::move(job));
  }

  void open_journal() {
    if (!options_.resume.empty()) return resume();
    if (out_.empty() || out_ == "-") return;
    journal_ = std::make_unique<Journal>(reports::journal_path(out_), run_);
  }

  // What the journal has is not run again, except what was interrupted.
  void resume() {
    reports::JournalContent content = reports::read_journal(options_.resume);
    if (content.run.device_name != run_.device_name || content.run.git_sha != run_.git_sha)
      throw UsageError("--resume", "'" + options_.resume + "' is of another device or another build");
    const int64_t length = content.length;
    std::map<std::pair<std::string, std::string>, size_t> wanted;
    for (size_t i = 0; i < jobs_.size(); ++i) wanted[{jobs_[i].blank.backend, jobs_[i].blank.case_text}] = i;
    run_ = content.run;
    for (Result& r : reports::assemble(std::move(content), 0).cases) {
      const auto job = wanted.find({r.backend, r.case_text});
      if (job == wanted.end()) earlier_.push_back(std::move(r));
      else if (r.status != CaseStatus::interrupted) results_[job->second] = std::move(r);
    }
    journal_ = std::make_unique<Journal>(options_.resume, length);
  }

  bool execute() {
    std::vector<Job> open;
    for (size_t i = 0; i < jobs_.size(); ++i) {
      if (results_[i]) continue;
      open.push_back(jobs_[i]);
      open_index_.push_back(i);
    }
    Progress progress(open.size(), options_.verbose);
    const auto done = [&](size_t index, const Result& r) {
      results_[open_index_[index]] = r;
      note(r);
      progress.finished(r);
    };
    if (open.empty()) return true;
    const std::vector<DeviceLock> locks = share_devices();
    if (options_.backend.isolate) return supervise(open, supervision(open.size()), done);
    CaseRunner runner(backends_.kernels.empty() ? -1 : devices().front(), check_options());
    for (size_t i = 0; i < open.size(); ++i) {
      if (StopSignals::raised()) return false;
      done(i, with_identity(open[i].blank, runner.run(open[i].request)));
    }
    return true;
  }

  // A full disk costs the journal, not the run; whether the results can be written is seen at the end.
  void note(const Result& r) {
    if (!journal_) return;
    try {
      journal_->add(r);
    } catch (const WriteError& error) {
      warn(std::string(error.what()) + "; going on without a journal");
      journal_.reset();
    }
  }

  std::vector<int> devices() const { return parse_devices(options_.devices, backends_.device.count); }

  std::vector<DeviceLock> share_devices() const {
    std::vector<DeviceLock> locks;
    if (backends_.kernels != "gpu") return locks;
    const std::vector<int> all = devices();
    for (const int device : std::set<int>(all.begin(), all.end()))
      locks.push_back(lock_device("fla-check", device, DeviceUse::shared));
    return locks;
  }

  CheckOptions check_options() const {
    CheckOptions options;
    options.repeat = options_.repeat;
    return options;
  }

  WorkerSlot slot(int device, bool device_jobs, bool host_jobs) const {
    return {{own_executable(), "--worker", std::to_string(device), std::to_string(options_.repeat)},
            device_jobs,
            host_jobs};
  }

  SupervisorOptions supervision(size_t jobs) const {
    SupervisorOptions supervision;
    supervision.timeout_s = options_.timeout_s;
    const size_t cores = std::max(1u, std::thread::hardware_concurrency());
    const size_t wanted = options_.workers > 0 ? static_cast<size_t>(options_.workers) : cores;
    const bool gpu = backends_.kernels == "gpu";
    if (gpu)
      for (const int device : devices()) supervision.slots.push_back(slot(device, true, false));
    if (gpu && !backends_.references) return supervision;
    for (size_t i = 0; i < std::min(wanted, jobs); ++i)
      supervision.slots.push_back(slot(gpu || backends_.kernels.empty() ? -1 : 0, !gpu, true));
    return supervision;
  }

  int conclude(bool interrupted) {
    RunResult all;
    all.run = run_;
    all.run.finished = utc_now();
    all.cases = std::move(earlier_);
    for (auto& r : results_)
      if (r) all.cases.push_back(std::move(*r));
    all.exit_code = exit_code_of(all.cases, interrupted, options_.demand);
    print(all);
    return write(all) ? all.exit_code : kWriteFailed;
  }

  void print(const RunResult& all) const {
    const bool json_on_stdout = out_ == "-";
    FILE* to = json_on_stdout ? stderr : stdout;
    const bool colour = reports::wants_colour(json_on_stdout ? 2 : 1);
    if (options_.quiet) {
      for (const Result& r : all.cases)
        if (is_failure(r.status)) std::fputs(reports::failure_text(r, colour).c_str(), to);
      std::fprintf(to, "%s\n", reports::verdict_sentence(all).c_str());
    } else {
      std::fputs(reports::check_report(all, colour).c_str(), to);
    }
    const char* actions = std::getenv("GITHUB_ACTIONS");
    if (actions && std::string(actions) == "true") std::fputs(reports::github_annotations(all).c_str(), to);
    std::fflush(to);
  }

  // Everything that can be written is, also when something cannot.
  bool write(const RunResult& all) {
    bool good = write_one(out_, [&] { return reports::write_results(all); });
    if (good && journal_ && all.exit_code != kInterrupted) ::unlink(journal_->path().c_str());
    good &= write_one(options_.junit, [&] { return reports::junit_xml(all); });
    good &= write_one(options_.html, [&] { return reports::html_page({all}, nullptr); });
    return good;
  }

  template <class Text>
  static bool write_one(const std::string& path, const Text& text) {
    if (path.empty()) return true;
    try {
      if (path == "-") reports::write_all(1, text(), "standard output");
      else reports::write_file(path, text());
      return true;
    } catch (const WriteError& error) {
      warn(error.what());
      return false;
    }
  }

  const CheckRunOptions& options_;
  const Backends backends_;
  RunInfo run_;
  std::string out_;
  std::vector<Job> jobs_;
  std::vector<std::optional<Result>> results_;
  std::vector<size_t> open_index_;
  std::vector<Result> earlier_;  // in a resumed journal, but not of this selection
  std::unique_ptr<Journal> journal_;
};

}  // namespace

int run_check(const CheckRunOptions& options, int argc, char** argv) {
  Backends backends = choose_backends(options.backend, argv);
  RunInfo run = start_run("fla-check", argc, argv);
  // What fla-check told the emulator's program is no argument of the user's.
  const auto passed_on = std::find(run.argv.begin(), run.argv.end(), "--fallback-reason");
  if (passed_on != run.argv.end()) run.argv.erase(passed_on, passed_on + 2);
  return CheckRun(options, std::move(backends), std::move(run)).run();
}

}  // namespace fla::harness
