#include "reports/atomic_file.h"

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>
#include <filesystem>
#include <fstream>

#include "reports/json.h"

namespace fla::reports {
namespace {

namespace fs = std::filesystem;

class AtomicFile : public testing::Test {
 protected:
  void SetUp() override {
    std::string name = (fs::temp_directory_path() / "fla-atomic-XXXXXX").string();
    ASSERT_NE(::mkdtemp(name.data()), nullptr);
    folder = name;
  }
  void TearDown() override { fs::remove_all(folder); }

  std::string path(const char* name) const { return (folder / name).string(); }
  size_t entries() const {
    return static_cast<size_t>(std::distance(fs::directory_iterator(folder), fs::directory_iterator()));
  }

  fs::path folder;
};

int error_of(const std::string& path, std::string_view text = "new") {
  try {
    write_file(path, text);
  } catch (const WriteError& e) {
    EXPECT_NE(std::string(e.what()), "");
    return e.error_number;
  }
  return 0;
}

// A full disk, as far as a process without root can have one: files of this process end at `bytes`.
class FileSizeLimit {
 public:
  explicit FileSizeLimit(rlim_t bytes) {
    previous_handler_ = std::signal(SIGXFSZ, SIG_IGN);
    ::getrlimit(RLIMIT_FSIZE, &previous_);
    const rlimit limit{bytes, previous_.rlim_max};
    ::setrlimit(RLIMIT_FSIZE, &limit);
  }
  ~FileSizeLimit() {
    ::setrlimit(RLIMIT_FSIZE, &previous_);
    std::signal(SIGXFSZ, previous_handler_);
  }

 private:
  rlimit previous_;
  void (*previous_handler_)(int);
};

TEST_F(AtomicFile, WritesAndReplaces) {
  write_file(path("a.json"), "first, and longer");
  write_file(path("a.json"), "second");
  EXPECT_EQ(load_text(path("a.json")), "second");
  EXPECT_EQ(entries(), 1u);
}

TEST_F(AtomicFile, CreatesMissingFolders) {
  write_file(path("x/y/z.json"), "text");
  EXPECT_EQ(load_text(path("x/y/z.json")), "text");
}

TEST_F(AtomicFile, FullDiskAtAnyByteKeepsTheEarlierFile) {
  const std::string text(40, 'n');
  for (rlim_t limit = 0; limit < text.size(); ++limit) {
    write_file(path("a.json"), "earlier");
    int error = 0;
    {
      const FileSizeLimit full(limit);
      error = error_of(path("a.json"), text);
    }
    ASSERT_EQ(error, EFBIG) << "at byte " << limit;
    ASSERT_EQ(load_text(path("a.json")), "earlier");
    ASSERT_EQ(entries(), 1u) << "a temporary file was left behind";
  }
}

TEST_F(AtomicFile, DirectoryIsNotReplaced) {
  fs::create_directory(folder / "out");
  EXPECT_EQ(error_of(path("out")), EISDIR);
  EXPECT_TRUE(fs::is_directory(folder / "out"));
}

TEST_F(AtomicFile, FolderThatIsAFileIsAnError) {
  write_file(path("file"), "text");
  EXPECT_NE(error_of(path("file/a.json")), 0);
  EXPECT_EQ(load_text(path("file")), "text");
}

TEST_F(AtomicFile, FolderWithoutWritePermissionIsAnError) {
  if (::geteuid() == 0) GTEST_SKIP() << "root may write everywhere";
  write_file(path("a.json"), "earlier");
  fs::permissions(folder, fs::perms::owner_read | fs::perms::owner_exec);
  const int error = error_of(path("a.json"));
  fs::permissions(folder, fs::perms::owner_all);
  EXPECT_EQ(error, EACCES);
  EXPECT_EQ(load_text(path("a.json")), "earlier");
}

TEST_F(AtomicFile, FollowsSymbolicLinks) {
  write_file(path("target"), "old");
  fs::create_symlink("target", folder / "link");
  fs::create_symlink("later", folder / "dangling");
  EXPECT_EQ(error_of(path("link")), 0);
  EXPECT_EQ(error_of(path("dangling")), 0);
  EXPECT_TRUE(fs::is_symlink(folder / "link"));
  EXPECT_EQ(load_text(path("target")), "new");
  EXPECT_EQ(load_text(path("later")), "new");
}

TEST_F(AtomicFile, LinkLoopIsAnError) {
  fs::create_symlink("loop", folder / "loop");
  EXPECT_EQ(error_of(path("loop")), ELOOP);
}

TEST_F(AtomicFile, DevicesAreWrittenNotReplaced) {
  EXPECT_EQ(error_of("/dev/null"), 0);
  struct stat status;
  ASSERT_EQ(::stat("/dev/null", &status), 0);
  EXPECT_TRUE(S_ISCHR(status.st_mode));
  EXPECT_EQ(error_of("/dev/full"), ENOSPC);
}

}  // namespace
}  // namespace fla::reports
