// The supervisor against workers that misbehave: a shell script stands in for the worker process.
#include "harness/supervisor.h"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <map>
#include <thread>

#include "reports/journal.h"

namespace fla::harness {
namespace {

// Answers with its own process id as the reason; the subject says how to misbehave.
constexpr const char* kScript = R"(
while read -r verb subject; do
  case $subject in
    crash*) kill -SEGV $$ ;;
    killed*) kill -KILL $$ ;;
    hang*) kill -STOP $$ ;;
    quit*) exit 0 ;;
    garbage*) echo 'not json' ;;
    verdictless*) echo '{"reason":"?"}' ;;
    half*) printf '{"status":"pas'; exit 0 ;;
    lost*) echo '{"status":"crashed","reason":"device lost: fell off the bus"}'; exit 0 ;;
    wrong*) echo '{"status":"failed","reason":"y[0]"}' ;;
    slow*) sleep 0.02; echo '{"status":"passed","reason":"'$$'"}' ;;
    *) echo '{"status":"passed","reason":"'$$'"}' ;;
  esac
done
)";

Job job(const std::string& subject, bool needs_device = true, const std::string& op = "") {
  Job j;
  j.request = "check " + subject;
  j.blank.case_text = subject;
  j.blank.key = subject;
  j.blank.op = op.empty() ? subject : op;
  j.blank.backend = needs_device ? "gpu" : "reference";
  j.blank.repro = "fla-check " + subject;
  j.needs_device = needs_device;
  return j;
}

SupervisorOptions one_worker() {
  SupervisorOptions options;
  options.slots.push_back({{"/bin/sh", "-c", kScript}, true, true});
  options.timeout_s = 20;
  return options;
}

std::map<std::string, Result> run(const std::vector<Job>& jobs, const SupervisorOptions& options) {
  std::map<std::string, Result> results;
  EXPECT_TRUE(supervise(jobs, options, [&](size_t index, const Result& r) {
    EXPECT_EQ(r.case_text, jobs[index].blank.case_text);
    EXPECT_TRUE(results.emplace(r.case_text, r).second) << "reported twice: " << r.case_text;
  }));
  EXPECT_EQ(results.size(), jobs.size());
  return results;
}

bool is_running(pid_t pid) {
  std::ifstream stat("/proc/" + std::to_string(pid) + "/stat");
  std::string text;
  if (!std::getline(stat, text)) return false;
  const char state = text[text.rfind(')') + 2];
  return state != 'Z' && state != 'X';
}

TEST(Supervisor, RunsEveryJobInOneWorker) {
  const auto results = run({job("a"), job("b"), job("c", false)}, one_worker());
  for (const auto& [name, r] : results) EXPECT_EQ(r.status, CaseStatus::passed) << name;
  EXPECT_EQ(results.at("a").reason, results.at("b").reason);  // the process id
  EXPECT_EQ(results.at("c").reason, results.at("b").reason);
  EXPECT_EQ(results.at("a").repro, "fla-check a");
}

TEST(Supervisor, CrashCostsOneCase) {
  const auto results = run({job("a"), job("crash"), job("b")}, one_worker());
  EXPECT_EQ(results.at("crash").status, CaseStatus::crashed);
  EXPECT_NE(results.at("crash").reason.find("signal 11"), std::string::npos) << results.at("crash").reason;
  EXPECT_EQ(results.at("crash").repro, "fla-check crash");
  EXPECT_EQ(results.at("b").status, CaseStatus::passed);
  EXPECT_NE(results.at("a").reason, results.at("b").reason);  // a fresh worker
}

TEST(Supervisor, KilledWorkerIsReported) {
  const auto results = run({job("killed"), job("b")}, one_worker());
  EXPECT_EQ(results.at("killed").status, CaseStatus::crashed);
  EXPECT_NE(results.at("killed").reason.find("signal 9"), std::string::npos);
  EXPECT_EQ(results.at("b").status, CaseStatus::passed);
}

TEST(Supervisor, HangEndsAtTheTimeout) {
  SupervisorOptions options = one_worker();
  options.timeout_s = 0.3;
  const auto start = std::chrono::steady_clock::now();
  const auto results = run({job("hang"), job("b")}, options);
  EXPECT_EQ(results.at("hang").status, CaseStatus::timeout);
  EXPECT_EQ(results.at("b").status, CaseStatus::passed);
  EXPECT_LT(std::chrono::steady_clock::now() - start, std::chrono::seconds(5));
}

TEST(Supervisor, SilentOrUnreadableAnswersAreCrashes) {
  const auto results =
      run({job("quit"), job("garbage"), job("verdictless"), job("half"), job("b")}, one_worker());
  for (const char* name : {"quit", "garbage", "verdictless", "half"})
    EXPECT_EQ(results.at(name).status, CaseStatus::crashed) << name;
  EXPECT_NE(results.at("quit").reason.find("exited with status 0 without an answer"), std::string::npos);
  EXPECT_EQ(results.at("b").status, CaseStatus::passed);
}

TEST(Supervisor, LostDeviceGetsAFreshWorker) {
  const auto results = run({job("a"), job("lost"), job("b")}, one_worker());
  EXPECT_EQ(results.at("lost").status, CaseStatus::crashed);
  EXPECT_EQ(results.at("lost").reason, "device lost: fell off the bus");
  EXPECT_EQ(results.at("b").status, CaseStatus::passed);
  EXPECT_NE(results.at("a").reason, results.at("b").reason);
}

TEST(Supervisor, ThreeCrashesQuarantineTheOperator) {
  std::vector<Job> jobs;
  for (int i = 0; i < 5; ++i) jobs.push_back(job("crash" + std::to_string(i), true, "bad"));
  jobs.push_back(job("fine", true, "good"));
  const auto results = run(jobs, one_worker());
  for (int i = 0; i < 3; ++i) EXPECT_EQ(results.at("crash" + std::to_string(i)).status, CaseStatus::crashed);
  for (int i = 3; i < 5; ++i) {
    const Result& r = results.at("crash" + std::to_string(i));
    EXPECT_EQ(r.status, CaseStatus::skipped);
    EXPECT_NE(r.reason.find("quarantined"), std::string::npos);
  }
  EXPECT_EQ(results.at("fine").status, CaseStatus::passed);
}

TEST(Supervisor, ProgramThatCannotStartIsNoSuccess) {
  SupervisorOptions options = one_worker();
  options.slots[0].command = {"/nonexistent/worker"};
  const auto results = run({job("a", true, "x"), job("b", true, "x")}, options);
  EXPECT_EQ(results.at("a").status, CaseStatus::crashed);
  EXPECT_NE(results.at("a").reason.find("127"), std::string::npos);
  EXPECT_EQ(results.at("b").status, CaseStatus::crashed);
}

TEST(Supervisor, JobsGoOnlyToWorkersThatTakeThem) {
  SupervisorOptions options = one_worker();
  options.slots[0].host_jobs = false;
  const auto results = run({job("a"), job("b", false)}, options);
  EXPECT_EQ(results.at("a").status, CaseStatus::passed);
  EXPECT_EQ(results.at("b").status, CaseStatus::skipped);
}

TEST(Supervisor, SeveralWorkersShareTheWork) {
  SupervisorOptions options = one_worker();
  options.slots.push_back(options.slots[0]);
  options.slots.push_back(options.slots[0]);
  std::vector<Job> jobs;
  for (int i = 0; i < 40; ++i)
    jobs.push_back(job(i % 10 == 3 ? "crash" + std::to_string(i) : std::to_string(i)));
  const auto results = run(jobs, options);
  for (const auto& [name, r] : results)
    EXPECT_EQ(r.status, name[0] == 'c' ? CaseStatus::crashed : CaseStatus::passed) << name;
}

TEST(Supervisor, SignalInterruptsWhatIsInFlight) {
  StopSignals stop;
  std::vector<Result> results;
  const auto done = [&](size_t, const Result& r) {
    results.push_back(r);
    if (results.size() == 1) raise(SIGTERM);
  };
  SupervisorOptions options = one_worker();
  options.slots.push_back(options.slots[0]);
  EXPECT_FALSE(supervise({job("a"), job("hang1"), job("hang2"), job("hang3")}, options, done));
  EXPECT_TRUE(StopSignals::raised());
  ASSERT_FALSE(results.empty());
  EXPECT_LT(results.size(), 4u);
  for (const Result& r : results)
    EXPECT_EQ(r.status, r.case_text == "a" ? CaseStatus::passed : CaseStatus::interrupted) << r.case_text;
}

// A supervisor killed by SIGKILL leaves every finished case in a readable journal, and no worker behind.
TEST(Supervisor, KilledSupervisorLeavesAReadableJournal) {
  const std::string folder = testing::TempDir() + "fla_killed_" + std::to_string(getpid());
  std::filesystem::create_directories(folder);
  const std::string path = folder + "/x.partial.jsonl";
  const pid_t child = fork();
  if (child == 0) {
    reports::Journal journal(path, RunInfo{});
    std::vector<Job> jobs;
    for (int i = 0; i < 1000; ++i) jobs.push_back(job("slow" + std::to_string(i)));
    supervise(jobs, one_worker(), [&](size_t, const Result& r) { journal.add(r); });
    _exit(0);
  }
  const auto limit = std::chrono::steady_clock::now() + std::chrono::seconds(20);
  const auto lines = [&] {
    std::ifstream in(path);
    return std::count(std::istreambuf_iterator<char>(in), {}, '\n');
  };
  while (lines() < 4 && std::chrono::steady_clock::now() < limit)
    std::this_thread::sleep_for(std::chrono::milliseconds(5));
  kill(child, SIGKILL);
  int status = 0;
  waitpid(child, &status, 0);
  ASSERT_TRUE(WIFSIGNALED(status));
  const reports::JournalContent content = reports::read_journal(path);
  EXPECT_GE(content.cases.size(), 3u);
  for (const Result& r : content.cases) EXPECT_EQ(r.status, CaseStatus::passed);
  const pid_t worker = std::stoi(content.cases.front().reason);
  for (int i = 0; i < 200 && is_running(worker); ++i)
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
  EXPECT_FALSE(is_running(worker));
  std::filesystem::remove_all(folder);
}

}  // namespace
}  // namespace fla::harness
