#include "harness/supervisor.h"

#include <poll.h>
#include <signal.h>

#include <algorithm>
#include <chrono>
#include <deque>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <system_error>

#include "harness/worker_process.h"
#include "reports/json.h"

namespace fla::harness {
namespace {

using Clock = std::chrono::steady_clock;

volatile sig_atomic_t stop_raised = 0;
void raise_stop(int) { stop_raised = 1; }

struct sigaction previous_int, previous_term;

// Outside ppoll the stop signals wait, so that none slips in between looking at the flag and going to sleep.
class Blocked {
 public:
  Blocked() {
    sigset_t stop;
    sigemptyset(&stop);
    sigaddset(&stop, SIGINT);
    sigaddset(&stop, SIGTERM);
    sigprocmask(SIG_BLOCK, &stop, &before_);
  }
  ~Blocked() { sigprocmask(SIG_SETMASK, &before_, nullptr); }
  const sigset_t* before() const { return &before_; }

 private:
  sigset_t before_;
};

class Supervisor {
 public:
  Supervisor(const std::vector<Job>& jobs, const SupervisorOptions& options,
             const std::function<void(size_t, const Result&)>& done)
      : jobs_(jobs), options_(options), done_(done), slots_(options.slots.size()) {
    for (size_t i = 0; i < jobs.size(); ++i)
      (jobs[i].needs_device ? device_queue_ : host_queue_).push_back(i);
  }

  bool run() {
    Blocked blocked;
    for (;;) {
      if (StopSignals::raised()) return interrupt();
      for (size_t i = 0; i < slots_.size(); ++i) assign(i);
      if (std::none_of(slots_.begin(), slots_.end(), [](const Slot& s) { return s.busy; })) break;
      wait(blocked.before());
      for (size_t i = 0; i < slots_.size(); ++i) look_at(slots_[i]);
    }
    skip_rest(device_queue_);
    skip_rest(host_queue_);
    return true;
  }

 private:
  struct Slot {
    std::unique_ptr<WorkerProcess> process;
    bool busy = false;
    size_t job = 0;
    Clock::time_point started;
  };

  std::string group(const Result& r) const { return r.op + " on " + r.backend; }

  bool next_job(const WorkerSlot& kind, size_t& job) {
    for (auto* queue :
         {kind.device_jobs ? &device_queue_ : nullptr, kind.host_jobs ? &host_queue_ : nullptr}) {
      while (queue && !queue->empty()) {
        job = queue->front();
        queue->pop_front();
        if (crashes_[group(jobs_[job].blank)] < options_.crashes_to_quarantine) return true;
        finish(job, CaseStatus::skipped,
               "quarantined: " + jobs_[job].blank.op + " crashed or hung " +
                   std::to_string(options_.crashes_to_quarantine) + " times in this run");
      }
    }
    return false;
  }

  // Gives an idle slot its next job, starting a worker for it where there is none.
  void assign(size_t index) {
    Slot& slot = slots_[index];
    size_t job = 0;
    while (!slot.busy && next_job(options_.slots[index], job)) {
      slot.job = job;
      slot.started = Clock::now();
      if (!slot.process && !start(slot, options_.slots[index])) continue;
      slot.busy = true;
      if (slot.process->send(jobs_[job].request)) return;
      crashed(slot);
    }
  }

  bool start(Slot& slot, const WorkerSlot& kind) {
    try {
      slot.process = std::make_unique<WorkerProcess>(kind.command);
      return true;
    } catch (const std::system_error& error) {
      ++crashes_[group(jobs_[slot.job].blank)];
      finish(slot.job, CaseStatus::crashed, error.what());
      return false;
    }
  }

  void wait(const sigset_t* mask) {
    std::vector<pollfd> sockets;
    double nearest = options_.timeout_s;
    for (const Slot& slot : slots_) {
      if (!slot.busy) continue;
      sockets.push_back({slot.process->descriptor(), POLLIN, 0});
      nearest = std::min(nearest, options_.timeout_s - age(slot));
    }
    const double wait_s = std::max(nearest, 0.0);
    timespec limit{static_cast<time_t>(wait_s),
                   static_cast<long>((wait_s - static_cast<time_t>(wait_s)) * 1e9)};
    ppoll(sockets.data(), sockets.size(), &limit, mask);
  }

  static double age(const Slot& slot) {
    return std::chrono::duration<double>(Clock::now() - slot.started).count();
  }

  void look_at(Slot& slot) {
    if (!slot.busy) return;
    std::string line;
    switch (slot.process->receive(line)) {
      case WorkerProcess::Received::line: return answered(slot, line);
      case WorkerProcess::Received::closed: return crashed(slot);
      case WorkerProcess::Received::nothing_yet: break;
    }
    if (age(slot) >= options_.timeout_s) timed_out(slot);
  }

  void answered(Slot& slot, const std::string& line) {
    Result answer;
    answer.status = CaseStatus::crashed;
    answer.reason = "the worker's answer has no verdict";
    try {
      reports::from_json(reports::parse_json(line, "the worker's answer"), answer);
    } catch (const std::exception& error) {
      answer = {};
      answer.status = CaseStatus::crashed;
      answer.reason = std::string("the worker gave no readable answer: ") + error.what();
    }
    answer.seconds = age(slot);
    // A worker that reports a crash (a lost device) is at its end.
    if (answer.status == CaseStatus::crashed) {
      ++crashes_[group(jobs_[slot.job].blank)];
      slot.process.reset();
    }
    slot.busy = false;
    done_(slot.job, with_identity(jobs_[slot.job].blank, std::move(answer)));
  }

  void crashed(Slot& slot) {
    const std::string ending = slot.process->end(1);
    give_up(slot, CaseStatus::crashed, "worker " + ending + " without an answer");
  }

  void timed_out(Slot& slot) {
    slot.process->end(0);
    char text[64];
    std::snprintf(text, sizeof text, "no answer within %g s", options_.timeout_s);
    give_up(slot, CaseStatus::timeout, text);
  }

  void give_up(Slot& slot, CaseStatus status, const std::string& reason) {
    ++crashes_[group(jobs_[slot.job].blank)];
    slot.process.reset();
    slot.busy = false;
    finish(slot.job, status, reason, age(slot));
  }

  void finish(size_t job, CaseStatus status, const std::string& reason, double seconds = 0) {
    Result result = jobs_[job].blank;
    result.status = status;
    result.reason = reason;
    result.seconds = seconds;
    done_(job, result);
  }

  bool interrupt() {
    for (Slot& slot : slots_) {
      if (slot.busy) finish(slot.job, CaseStatus::interrupted, "stopped by a signal", age(slot));
      slot.process.reset();
    }
    return false;
  }

  void skip_rest(std::deque<size_t>& queue) {
    for (; !queue.empty(); queue.pop_front())
      finish(queue.front(), CaseStatus::skipped, "no worker takes this case");
  }

  const std::vector<Job>& jobs_;
  const SupervisorOptions& options_;
  const std::function<void(size_t, const Result&)>& done_;
  std::vector<Slot> slots_;
  std::deque<size_t> device_queue_, host_queue_;
  std::map<std::string, int> crashes_;
};

}  // namespace

bool supervise(const std::vector<Job>& jobs, const SupervisorOptions& options,
               const std::function<void(size_t, const Result&)>& done) {
  return Supervisor(jobs, options, done).run();
}

Result with_identity(const Result& blank, Result answer) {
  answer.key = blank.key;
  answer.case_text = blank.case_text;
  answer.op = blank.op;
  answer.direction = blank.direction;
  answer.tier = blank.tier;
  answer.name = blank.name;
  answer.params = blank.params;
  answer.backend = blank.backend;
  answer.repro = blank.repro;
  return answer;
}

StopSignals::StopSignals() {
  stop_raised = 0;
  struct sigaction action = {};
  action.sa_handler = raise_stop;
  sigemptyset(&action.sa_mask);
  sigaction(SIGINT, &action, &previous_int);
  sigaction(SIGTERM, &action, &previous_term);
}

StopSignals::~StopSignals() {
  sigaction(SIGINT, &previous_int, nullptr);
  sigaction(SIGTERM, &previous_term, nullptr);
  stop_raised = 0;
}

bool StopSignals::raised() { return stop_raised != 0; }

}  // namespace fla::harness
