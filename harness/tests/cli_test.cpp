// The built fla-check as its users see it: output, files and exit codes. No GPU is visible to it here.
#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <functional>
#include <sstream>
#include <thread>

#include "harness/result.h"
#include "reports/journal.h"
#include "reports/json.h"

namespace fla::harness {
namespace {

namespace fs = std::filesystem;

constexpr const char* kSmall = "swiglu.fwd:M=3,F=5";
constexpr const char* kSlow = "swiglu.bwd:M=512,F=1024";  // long enough to be caught in the middle

struct Outcome {
  int code = -1;
  std::string out, err;
};

std::string text_of(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  std::stringstream text;
  text << in.rdbuf();
  return text.str();
}

int lines_in(const std::string& text) { return static_cast<int>(std::count(text.begin(), text.end(), '\n')); }

int occurrences(const std::string& text, const std::string& of) {
  int n = 0;
  for (size_t at = text.find(of); at != std::string::npos; at = text.find(of, at + 1)) ++n;
  return n;
}

class Cli : public testing::Test {
 protected:
  fs::path folder_ = fs::path(testing::TempDir()) / ("fla_cli_" + std::to_string(getpid()));
  rlim_t file_limit_ = 0;  // bytes that a file may grow to
  void SetUp() override { fs::create_directories(folder_); }
  void TearDown() override { fs::remove_all(folder_); }

  std::string in_folder(const std::string& name) const { return (folder_ / name).string(); }

  pid_t start(const std::vector<std::string>& arguments) {
    const pid_t pid = fork();
    if (pid != 0) return pid;
    setenv("CUDA_VISIBLE_DEVICES", "", 1);
    dup2(open(in_folder("stdout").c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600), 1);
    dup2(open(in_folder("stderr").c_str(), O_WRONLY | O_CREAT | O_TRUNC, 0600), 2);
    if (file_limit_ > 0) {
      signal(SIGXFSZ, SIG_IGN);  // writes beyond the limit then fail as on a full disk
      const rlimit limit{file_limit_, file_limit_};
      setrlimit(RLIMIT_FSIZE, &limit);
    }
    std::vector<char*> raw{const_cast<char*>("fla-check")};
    for (const std::string& a : arguments) raw.push_back(const_cast<char*>(a.c_str()));
    raw.push_back(nullptr);
    execv(FLA_CHECK_PATH, raw.data());
    _exit(127);
  }

  Outcome finish(pid_t pid) {
    int status = 0;
    waitpid(pid, &status, 0);
    return {WIFEXITED(status) ? WEXITSTATUS(status) : -1, text_of(folder_ / "stdout"),
            text_of(folder_ / "stderr")};
  }

  Outcome run(const std::vector<std::string>& arguments) { return finish(start(arguments)); }

  // Bad usage is one line on standard error and exit code 2.
  void expect_usage_error(const std::vector<std::string>& arguments, const std::string& mentions) {
    const Outcome o = run(arguments);
    EXPECT_EQ(o.code, kUsage) << o.err;
    EXPECT_EQ(lines_in(o.err), 1) << o.err;
    EXPECT_EQ(o.out, "");
    EXPECT_NE(o.err.find(mentions), std::string::npos) << o.err;
  }
};

// The worker processes of a running fla-check.
std::vector<pid_t> children_of(pid_t pid) {
  std::istringstream list(
      text_of("/proc/" + std::to_string(pid) + "/task/" + std::to_string(pid) + "/children"));
  std::vector<pid_t> children;
  for (pid_t child; list >> child;) children.push_back(child);
  return children;
}

bool wait_until(const std::function<bool()>& condition) {
  for (int i = 0; i < 2000; ++i) {
    if (condition()) return true;
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
  return false;
}

TEST_F(Cli, BadUsageIsOneLineAndExit2) {
  expect_usage_error({"--no-such-option"}, "no-such-option");
  expect_usage_error({"--backend", "abacus"}, "abacus");
  expect_usage_error({"swiglu.fwd:M=three,F=5"}, "three");
  expect_usage_error({"swigloo.fwd:M=3,F=5"}, "swiglu");  // the nearest known name
  expect_usage_error({"swiglu.fwd:M=3"}, "F");
  expect_usage_error({kSmall, "--shard", "3/2"}, "3/2");
  expect_usage_error({"--replay", in_folder("absent.safetensors")}, "absent.safetensors");
  expect_usage_error({"--resume", in_folder("absent.partial.jsonl"), kSmall, "--backend", "reference"},
                     "absent");
}

TEST_F(Cli, MalformedSuiteNamesFileAndPlace) {
  const std::string path = in_folder("bad.json");
  std::ofstream(path)
      << R"({"schema":1,"operator":"swiglu","cases":[{"tier":"smoke","direction":"fwd","product":{"M":[]}}]})";
  expect_usage_error({"--suite", path}, "bad.json");
  std::ofstream(path) << "{";
  expect_usage_error({"--suite", path}, "bad.json");
}

TEST_F(Cli, ListsWithoutRunning) {
  Outcome o = run({"--list", kSmall, "--axis", "M=1,2"});
  EXPECT_EQ(o.code, kPassed);
  EXPECT_EQ(o.out, "swiglu.fwd:M=1,F=5\nswiglu.fwd:M=2,F=5\n");
  o = run({"--list-ops"});
  EXPECT_EQ(o.code, kPassed);
  EXPECT_NE(o.out.find("rms_norm.bwd\n"), std::string::npos);
  o = run({"--dry-run", kSmall});
  EXPECT_NE(o.out.find("bytes  swiglu.fwd:M=3,F=5\n"), std::string::npos) << o.out;
}

TEST_F(Cli, NothingExecutedIsNotSuccess) {
  EXPECT_EQ(run({kSmall, "--filter", "nothing*", "--backend", "reference"}).code, kNothingRan);
  EXPECT_EQ(run({kSmall, "--filter", "nothing*", "--backend", "reference", "--allow-empty"}).code, kPassed);
  EXPECT_EQ(run({kSmall, "--backend", "reference", "--min-cases", "2"}).code, kNothingRan);
  EXPECT_EQ(run({"--list", kSmall, "--filter", "nothing*"}).code, kNothingRan);
}

TEST_F(Cli, MissingGpuIsSaidPlainly) {
  for (const std::vector<std::string>& wish :
       {std::vector<std::string>{kSmall, "--require-gpu"}, {kSmall, "--backend", "gpu"}}) {
    const Outcome o = run(wish);
    EXPECT_EQ(o.code, kNothingRan);
    EXPECT_EQ(lines_in(o.err), 1) << o.err;
    EXPECT_NE(o.err.find("no GPU"), std::string::npos) << o.err;
  }
}

TEST_F(Cli, WithoutAGpuEmulatorAndReferencesRun) {
  const std::string out = in_folder("r.json");
  const Outcome o = run({kSmall, "--out", out, "--junit", in_folder("r.xml"), "--html", in_folder("r.html")});
  EXPECT_EQ(o.code, kPassed) << o.out << o.err;
  EXPECT_EQ(occurrences(o.err, "running kernels on the CPU emulator and the references"), 1) << o.err;
  const RunResult result = reports::load_results(out);
  ASSERT_EQ(result.cases.size(), 2u);
  EXPECT_EQ(result.cases[0].backend, "emulator");
  EXPECT_EQ(result.cases[1].backend, "reference");
  EXPECT_EQ(result.run.device_name, "cpu");
  ASSERT_GE(result.run.argv.size(), 2u);
  EXPECT_EQ(result.run.argv[1], kSmall);
  EXPECT_FALSE(fs::exists(reports::journal_path(out)));
  EXPECT_NE(text_of(in_folder("r.xml")).find("<testsuite"), std::string::npos);
  EXPECT_NE(text_of(in_folder("r.html")).find("<html"), std::string::npos);
  EXPECT_EQ(text_of(out).find(folder_.string()), std::string::npos) << "absolute paths are nobody's business";
}

TEST_F(Cli, JsonOnStandardOutputIsAllThatIsThere) {
  const Outcome o = run({kSmall, "--backend", "reference", "--out", "-"});
  EXPECT_EQ(o.code, kPassed);
  EXPECT_EQ(reports::read_results(o.out, "stdout").cases.size(), 1u);
}

TEST_F(Cli, InProcessGivesTheSameVerdict) {
  EXPECT_EQ(run({kSmall, "--backend", "emulator", "--no-isolate"}).code, kPassed);
}

TEST_F(Cli, TimeoutFailsWithOneReproLine) {
  const Outcome o = run({kSlow, "--backend", "reference", "--timeout", "0.01"});
  EXPECT_EQ(o.code, kFailed);
  EXPECT_EQ(occurrences(o.out + o.err, "fla-check " + std::string(kSlow)), 1) << o.out << o.err;
  EXPECT_NE(o.out.find("timeout"), std::string::npos);
}

TEST_F(Cli, AnnotatesOnGithub) {
  setenv("GITHUB_ACTIONS", "true", 1);
  const Outcome o = run({kSlow, "--backend", "reference", "--timeout", "0.01"});
  unsetenv("GITHUB_ACTIONS");
  EXPECT_EQ(occurrences(o.out, "::error"), 1) << o.out;
}

TEST_F(Cli, KilledWorkerCostsItsCase) {
  const pid_t pid = start({kSlow, kSmall, "--backend", "reference", "-j", "1", "--out", in_folder("r.json")});
  std::vector<pid_t> workers;
  ASSERT_TRUE(wait_until([&] { return !(workers = children_of(pid)).empty(); }));
  kill(workers[0], SIGKILL);
  EXPECT_EQ(finish(pid).code, kFailed);
  const RunResult result = reports::load_results(in_folder("r.json"));
  ASSERT_EQ(result.cases.size(), 2u);
  EXPECT_EQ(result.cases[0].status, CaseStatus::crashed);
  EXPECT_EQ(result.cases[1].status, CaseStatus::passed);
}

TEST_F(Cli, InterruptedRunIsValidAndCanBeResumed) {
  const std::string out = in_folder("r.json"), journal = reports::journal_path(out);
  const std::vector<std::string> cases{kSmall, kSlow, "--backend", "reference", "-j", "1"};
  std::vector<std::string> first = cases;
  first.insert(first.end(), {"--out", out});
  const pid_t pid = start(first);
  ASSERT_TRUE(wait_until([&] { return lines_in(text_of(journal)) >= 2; }));  // header, first case
  kill(pid, SIGTERM);
  EXPECT_EQ(finish(pid).code, kInterrupted);
  RunResult result = reports::load_results(out);
  EXPECT_EQ(result.exit_code, kInterrupted);
  ASSERT_EQ(result.cases.size(), 2u);
  EXPECT_EQ(result.cases[0].status, CaseStatus::passed);
  EXPECT_EQ(result.cases[1].status, CaseStatus::interrupted);

  std::vector<std::string> second = cases;
  second.insert(second.end(), {"--resume", journal, "-v"});
  const Outcome o = run(second);
  EXPECT_EQ(o.code, kPassed) << o.err;
  EXPECT_EQ(o.err.find(kSmall), std::string::npos) << "ran again: " << o.err;
  result = reports::load_results(out);
  ASSERT_EQ(result.cases.size(), 2u);
  for (const Result& r : result.cases) EXPECT_EQ(r.status, CaseStatus::passed);
  EXPECT_FALSE(fs::exists(journal));
}

TEST_F(Cli, FullDiskIsExit7) {
  EXPECT_EQ(run({kSmall, "--backend", "reference", "--junit", "/dev/full"}).code, kWriteFailed);
  fs::create_symlink("/dev/full", folder_ / "full.json");
  const Outcome o = run({kSmall, "--backend", "reference", "--out", in_folder("full.json")});
  EXPECT_EQ(o.code, kWriteFailed);
  EXPECT_NE(o.err.find("No space left"), std::string::npos) << o.err;
  EXPECT_TRUE(fs::exists(in_folder("full.partial.jsonl")));  // the cases are not lost
  EXPECT_EQ(run({kSmall, "--dump", "/dev/full"}).code, kWriteFailed);
}

TEST_F(Cli, JournalThatCannotBeBegunIsExit7) {
  fs::create_symlink("/dev/full", folder_ / "r.partial.jsonl");
  EXPECT_EQ(run({kSmall, "--backend", "reference", "--out", in_folder("r.json")}).code, kWriteFailed);
}

// A disk that fills up while the cases run: they all run, what was written stays readable, and the run says
// so.
TEST_F(Cli, DiskThatFillsUpMidRunIsExit7) {
  file_limit_ = 6000;
  const Outcome o =
      run({kSmall, "--axis", "M=1..40:1", "--backend", "reference", "-q", "--out", in_folder("r.json")});
  EXPECT_EQ(o.code, kWriteFailed);
  EXPECT_NE(o.err.find("going on without a journal"), std::string::npos) << o.err;
  EXPECT_NE(o.out.find("40 cases passed"), std::string::npos) << o.out;
  EXPECT_FALSE(fs::exists(in_folder("r.json")));
  const size_t kept = reports::read_journal(in_folder("r.partial.jsonl")).cases.size();
  EXPECT_GT(kept, 0u);
  EXPECT_LT(kept, 40u);
}

TEST_F(Cli, DumpedCaseReplays) {
  const std::string file = in_folder("case.safetensors");
  ASSERT_EQ(run({"rms_norm.fwd:M=3,N=8,x=bf16", "--dump", file}).code, kPassed);
  Outcome o = run({"--replay", file, "--backend", "reference"});
  EXPECT_EQ(o.code, kPassed) << o.out << o.err;
  o = run({"--replay", file, "--backend", "emulator", "--out", in_folder("r.json")});
  EXPECT_EQ(o.code, kPassed) << o.out << o.err;
  const RunResult result = reports::load_results(in_folder("r.json"));
  ASSERT_EQ(result.cases.size(), 1u);
  const auto has = [&](const std::string& name) {
    const auto& checks = result.cases[0].checks;
    return std::any_of(checks.begin(), checks.end(), [&](const Check& c) { return c.name == name; });
  };
  EXPECT_TRUE(has("claim:y"));  // what the file says
  EXPECT_TRUE(has("y"));        // what our kernel gives
  expect_usage_error({"--dump", file, kSmall, "rms_norm.fwd:M=3,N=8"}, "2 are selected");
}

TEST_F(Cli, HostileReplayFileIsExit2) {
  std::ofstream(in_folder("x.safetensors"), std::ios::binary)
      << std::string("\xff\xff\xff\xff\xff\xff\xff\xff{}", 10);
  expect_usage_error({"--replay", in_folder("x.safetensors")}, "header of");
}

}  // namespace
}  // namespace fla::harness
