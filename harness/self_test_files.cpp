// L3, what is read and written: a file that is not what it should be must never look like a good one.
#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

#include "harness/check_run.h"
#include "harness/self_test_layers.h"
#include "harness/suite.h"
#include "reports/journal.h"
#include "reports/json.h"

namespace fla::harness {
namespace {

namespace fs = std::filesystem;

class ScratchFolder {
 public:
  ScratchFolder() {
    std::string name = (fs::temp_directory_path() / "fla-self-test-XXXXXX").string();
    if (!::mkdtemp(name.data())) throw std::runtime_error("no temporary folder: " + name);
    path_ = name;
  }
  ~ScratchFolder() {
    std::error_code ignored;
    fs::remove_all(path_, ignored);
  }
  ScratchFolder(const ScratchFolder&) = delete;
  ScratchFolder& operator=(const ScratchFolder&) = delete;

  std::string file(const std::string& name) const { return (path_ / name).string(); }
  std::string written(const std::string& name, const std::string& text) const {
    std::ofstream(file(name)) << text;
    return file(name);
  }

 private:
  fs::path path_;
};

// What refused it, and with which words; nothing when it was accepted.
template <class Error, class Act>
Reported refused(const std::string& net, Act act) {
  Reported r;
  try {
    act();
  } catch (const Error& error) {
    r.nets.insert(net);
    r.detail = error.what();
  } catch (const std::exception& error) {
    r.detail = error.what();  // an error of another kind gets another exit code
  }
  return r;
}

void plant_in_suites(KillMatrix& matrix, const ScratchFolder& folder) {
  const auto loaded = [&](const std::string& text) {
    const std::string path = folder.written("suite.json", text);
    return refused<UsageError>("suite", [&] { load_suites(path, "ci"); });
  };
  const std::string head = R"({"schema":1,"operator":"swiglu","cases":[)";
  const std::string good = R"({"tier":"smoke","direction":"fwd","product":{"M":[2,3],"F":[5]}})";
  matrix.clean("L3", "suite", loaded(head + good + "]}"));
  const std::pair<const char*, std::string> bad[] = {
      {"unknown operator", R"({"schema":1,"operator":"swiglo","cases":[)" + good + "]}"},
      {"unknown key", R"({"schema":1,"operator":"swiglu","case":[)" + good + "]}"},
      {"unknown key in an entry",
       head + R"({"teir":"smoke","direction":"fwd","product":{"M":[2],"F":[5]}}]})"},
      {"unknown tier", head + R"({"tier":"smokey","direction":"fwd","product":{"M":[2],"F":[5]}}]})"},
      {"unknown direction", head + R"({"tier":"smoke","direction":"forward","product":{"M":[2],"F":[5]}}]})"},
      {"unknown dimension", head + R"({"tier":"smoke","direction":"fwd","product":{"M":[2],"G":[5]}}]})"},
      {"unknown dtype",
       head + R"({"tier":"smoke","direction":"fwd","product":{"M":[2],"F":[5],"x":["bf61"]}}]})"},
      {"empty list of values", head + R"({"tier":"smoke","direction":"fwd","product":{"M":[],"F":[5]}}]})"},
      {"no cases", head + "]}"},
      {"the same case twice", head + good + "," + good + "]}"},
      {"cut off", head + good},
  };
  for (const auto& [fault, text] : bad)
    matrix.planted("L3", std::string("suite: ") + fault, "suite", {"suite"}, loaded(text));
  for (const char* text : {"swiglu.fwd:M=2,F=x", "swiglu.fwd:M=2", "swiglu.fwd:M=2,F=3,fil=exact",
                           "swiglu.fwd:M=2,F=3,x=bf61", "swiglo.fwd:M=2,F=3"})
    matrix.planted("L3", "case string with a mistake", text, {"case"},
                   refused<UsageError>("case", [&] { make_problem(parse_case(text), false); }));
}

Result passed(const std::string& text) {
  Result r;
  r.key = r.case_text = text;
  r.op = "swiglu";
  r.backend = "reference";
  r.status = CaseStatus::passed;
  return r;
}

std::string journal_of_three(const ScratchFolder& folder) {
  const std::string path = folder.file("run.partial.jsonl");
  reports::Journal journal(path, RunInfo());
  for (const char* text : {"swiglu.fwd:M=1,F=1", "swiglu.fwd:M=2,F=1", "swiglu.fwd:M=3,F=1"})
    journal.add(passed(text));
  return path;
}

void plant_in_journal(KillMatrix& matrix, const ScratchFolder& folder) {
  std::string path = journal_of_three(folder);
  const std::string text = reports::load_text(path);
  const auto torn = [&](size_t whole_cases) {
    Reported r;
    const reports::JournalContent content = reports::read_journal(path);
    if (content.torn && content.cases.size() == whole_cases) r.nets.insert("journal");
    return r;
  };
  matrix.clean("L3", "journal", torn(3));
  fs::resize_file(path, text.size() - 9);
  matrix.planted("L3", "journal with a torn line", "journal", {"journal"}, torn(2));

  std::string damaged = text;
  damaged[damaged.find("M=2") - 20] = '\x01';
  path = folder.written("damaged.partial.jsonl", damaged);
  matrix.planted("L3", "journal damaged in the middle", "journal", {"journal"},
                 refused<reports::FormatError>("journal", [&] { reports::read_journal(path); }));
  path = folder.written("empty.partial.jsonl", "");
  matrix.planted("L3", "journal without a header", "journal", {"journal"},
                 refused<reports::FormatError>("journal", [&] { reports::read_journal(path); }));
}

void plant_in_results(KillMatrix& matrix) {
  RunResult run;
  run.cases = {passed("swiglu.fwd:M=1,F=1"), passed("swiglu.fwd:M=2,F=1")};
  const std::string text = reports::write_results(run);
  const auto read = [](const std::string& content) {
    return refused<reports::FormatError>("results", [&] { reports::read_results(content, "results"); });
  };
  const auto with = [&](const std::string& from, const std::string& to) {
    std::string changed = text;
    changed.replace(changed.find(from), from.size(), to);
    return changed;
  };
  matrix.clean("L3", "results", read(text));
  for (const size_t length : {size_t{0}, text.size() / 3, text.size() / 2, text.size() - 4})
    matrix.planted("L3", "result file cut off", "results", {"results"}, read(text.substr(0, length)));
  matrix.planted("L3", "result file of another schema", "results", {"results"},
                 read(with("fla.results/1", "fla.results/2")));
  matrix.planted("L3", "result file with an unknown status", "results", {"results"},
                 read(with("\"passed\"", "\"fine\"")));
}

// The exit code of a run in a process of its own, whose output nobody sees.
int exit_code_of_run(const CheckRunOptions& options) {
  const pid_t child = ::fork();
  if (child < 0) throw std::runtime_error("no process for the self-test");
  if (child == 0) {
    const int nowhere = ::open("/dev/null", O_WRONLY);
    ::dup2(nowhere, 1);
    ::dup2(nowhere, 2);
    char name[] = "fla-check";
    char* argv[] = {name, nullptr};
    int code = -1;
    try {
      code = run_check(options, 1, argv);
    } catch (const UsageError&) {
      code = kUsage;
    } catch (const std::exception&) {
    }
    ::_exit(code);
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

void plant_in_runs(KillMatrix& matrix, const ScratchFolder& folder) {
  const auto expect = [&](const char* fault, const CheckRunOptions& options, int wanted) {
    Reported r;
    const int code = exit_code_of_run(options);
    r.detail = "exit code " + std::to_string(code);
    if (code == wanted) r.nets.insert("exit code");
    matrix.planted("L3", fault, "run", {"exit code"}, r);
  };
  CheckRunOptions good;
  good.selection.cases = {"swiglu.fwd:M=2,F=3"};
  good.backend.backend = "reference";
  good.backend.isolate = false;
  good.out = folder.file("results.json");
  Reported alarm;
  if (const int code = exit_code_of_run(good); code != kPassed)
    alarm = {{"exit code"}, "exit code " + std::to_string(code)};
  matrix.clean("L3", "run", alarm);

  CheckRunOptions bad = good;
  bad.junit = "/dev/full";
  expect("result that cannot be written", bad, kWriteFailed);
  bad = good;
  bad.selection.cases = {"swiglu.fwd:M=2,F=3,fil=exact"};
  expect("run of a mistaken case", bad, kUsage);
  bad = good;
  bad.selection.cases.clear();
  bad.selection.suite = folder.written(
      "one.json",
      R"({"schema":1,"operator":"swiglu","cases":[{"tier":"smoke","case":"swiglu.fwd:M=2,F=3"}]})");
  bad.selection.filters = {"nothing like this"};
  expect("run that selects nothing", bad, kNothingRan);
}

}  // namespace

void plant_file_faults(KillMatrix& matrix) {
  const ScratchFolder folder;
  plant_in_suites(matrix, folder);
  plant_in_journal(matrix, folder);
  plant_in_results(matrix);
  plant_in_runs(matrix, folder);
}

}  // namespace fla::harness
