#include "reports/journal.h"

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "reports/tests/sample_results.h"

namespace fla::reports {
namespace {

namespace fs = std::filesystem;

class JournalFile : public testing::Test {
 protected:
  void SetUp() override {
    std::string name = (fs::temp_directory_path() / "fla-journal-XXXXXX").string();
    ASSERT_NE(::mkdtemp(name.data()), nullptr);
    folder = name;
    path = (folder / "out" / "run.partial.jsonl").string();
  }
  void TearDown() override { fs::remove_all(folder); }

  void write_three() const {
    Journal journal(path, sample_run_info());
    for (const char* text : {"a.fwd:M=1", "a.fwd:M=2", "a.fwd:M=3"}) journal.add(passed_result("a", text));
  }
  void append(std::string_view text) const { std::ofstream(path, std::ios::app) << text; }

  fs::path folder;
  std::string path;
};

TEST_F(JournalFile, NameStandsBesideTheResult) {
  EXPECT_EQ(journal_path("out/check.json"), "out/check.partial.jsonl");
  EXPECT_EQ(journal_path("check"), "check.partial.jsonl");
}

TEST_F(JournalFile, ReadsBackWhatWasAdded) {
  write_three();
  const JournalContent content = read_journal(path);
  EXPECT_EQ(content.run.device_name, "NVIDIA H200");
  ASSERT_EQ(content.cases.size(), 3u);
  EXPECT_EQ(content.cases[2].case_text, "a.fwd:M=3");
  EXPECT_FALSE(content.torn);
  EXPECT_EQ(content.length, static_cast<int64_t>(fs::file_size(path)));
}

TEST_F(JournalFile, EveryTruncationKeepsTheWholeLines) {
  write_three();
  const std::string text = load_text(path);
  const size_t header = text.find('\n') + 1;
  for (size_t length = header; length <= text.size(); length += 7) {
    fs::resize_file(path, length);
    const auto lines = std::count(text.begin(), text.begin() + static_cast<std::ptrdiff_t>(length), '\n');
    const JournalContent content = read_journal(path);
    ASSERT_EQ(content.cases.size(), static_cast<size_t>(lines - 1)) << "cut at " << length;
    ASSERT_EQ(content.torn, text[length - 1] != '\n');
    std::ofstream(path, std::ios::binary) << text;
  }
  fs::resize_file(path, header - 1);
  EXPECT_THROW(read_journal(path), FormatError);
}

TEST_F(JournalFile, ResumingCutsTheTornLineOff) {
  write_three();
  append(R"({"key":"a.fwd:M=4","ca)");
  const JournalContent before = read_journal(path);
  EXPECT_TRUE(before.torn);
  {
    Journal journal(path, before.length);
    journal.add(passed_result("a", "a.fwd:M=5"));
  }
  const JournalContent after = read_journal(path);
  EXPECT_FALSE(after.torn);
  ASSERT_EQ(after.cases.size(), 4u);
  EXPECT_EQ(after.cases[3].case_text, "a.fwd:M=5");
}

TEST_F(JournalFile, GarbageAtTheEndIsTornGarbageInsideIsAnError) {
  write_three();
  append("\x01\x02\n");
  EXPECT_EQ(read_journal(path).cases.size(), 3u);
  EXPECT_TRUE(read_journal(path).torn);
  append(dump_json(to_json(passed_result("a", "a.fwd:M=9"))) + "\n");
  try {
    read_journal(path);
    FAIL() << "damage inside was accepted";
  } catch (const FormatError& e) {
    EXPECT_NE(std::string(e.what()).find(":5:"), std::string::npos) << e.what();
  }
}

TEST_F(JournalFile, OtherFilesAreNoJournals) {
  EXPECT_THROW(read_journal(path), FormatError);
  fs::create_directories(folder / "out");
  append("{\"schema\":\"fla.results/2\",\"run\":{}}\n");
  EXPECT_THROW(read_journal(path), FormatError);
}

TEST_F(JournalFile, SurvivesSigkill) {
  const pid_t child = ::fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    Journal journal(path, sample_run_info());
    for (int i = 0;; ++i) {
      journal.add(passed_result("a", "a.fwd:M=" + std::to_string(i)));
      if (i == 7) ::kill(::getpid(), SIGKILL);
    }
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  ASSERT_TRUE(WIFSIGNALED(status));
  EXPECT_EQ(read_journal(path).cases.size(), 8u);
}

TEST_F(JournalFile, FullDiskIsAnErrorAndLeavesWholeLines) {
  const auto old_handler = std::signal(SIGXFSZ, SIG_IGN);
  rlimit old_limit;
  ::getrlimit(RLIMIT_FSIZE, &old_limit);
  Journal journal(path, sample_run_info());
  journal.add(passed_result("a", "a.fwd:M=1"));
  const rlimit full{static_cast<rlim_t>(fs::file_size(path) + 20), old_limit.rlim_max};
  ::setrlimit(RLIMIT_FSIZE, &full);
  EXPECT_THROW(journal.add(passed_result("a", "a.fwd:M=2")), WriteError);
  ::setrlimit(RLIMIT_FSIZE, &old_limit);
  std::signal(SIGXFSZ, old_handler);
  EXPECT_FALSE(read_journal(path).torn);
  EXPECT_EQ(read_journal(path).cases.size(), 1u);
  journal.add(passed_result("a", "a.fwd:M=3"));
  EXPECT_EQ(read_journal(path).cases.size(), 2u);
}

TEST_F(JournalFile, AssemblesTheResult) {
  JournalContent content;
  content.run = sample_run_info();
  harness::Result interrupted = passed_result("a", "a.fwd:M=1");
  interrupted.status = harness::CaseStatus::interrupted;
  harness::Result emulated = passed_result("a", "a.fwd:M=1");
  emulated.backend = "emulator";
  content.cases = {interrupted, passed_result("a", "a.fwd:M=1"), emulated, passed_result("a", "a.fwd:M=1")};
  const harness::RunResult result = assemble(content, harness::kPassed);
  ASSERT_EQ(result.cases.size(), 3u) << "only the superseded interrupted record goes";
  EXPECT_EQ(result.cases[1].backend, "emulator");
  EXPECT_EQ(result.run.id, content.run.id);

  content.cases = {passed_result("a", "a.fwd:M=1"), interrupted};
  EXPECT_EQ(assemble(content, harness::kInterrupted).cases.size(), 2u) << "the last word stays";
}

}  // namespace
}  // namespace fla::reports
