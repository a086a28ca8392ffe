#include "reports/atomic_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstring>
#include <filesystem>

namespace fla::reports {

namespace fs = std::filesystem;

WriteError::WriteError(const std::string& path, const std::string& action, int error_number_)
    : std::runtime_error("cannot " + action + " " + path + ": " + std::strerror(error_number_)),
      error_number(error_number_) {}

namespace {

class Descriptor {
 public:
  Descriptor(const std::string& path, int flags)
      : path_(path), fd_(::open(path.c_str(), flags | O_CLOEXEC, 0666)) {
    if (fd_ < 0) throw WriteError(path, "open", errno);
  }
  ~Descriptor() {
    if (fd_ >= 0) ::close(fd_);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;

  int get() const { return fd_; }
  void sync() const {
    if (::fsync(fd_) != 0) throw WriteError(path_, "flush", errno);
  }
  void close() {  // network file systems report a full disk here
    const int fd = fd_;
    fd_ = -1;
    if (::close(fd) != 0) throw WriteError(path_, "close", errno);
  }

 private:
  std::string path_;
  int fd_;
};

// Removes the file unless it has been moved to its place.
class TemporaryFile {
 public:
  explicit TemporaryFile(std::string path) : path(std::move(path)) {}
  ~TemporaryFile() {
    if (!moved_) ::unlink(path.c_str());
  }
  TemporaryFile(const TemporaryFile&) = delete;
  TemporaryFile& operator=(const TemporaryFile&) = delete;

  void move_to(const std::string& target) {
    if (::rename(path.c_str(), target.c_str()) != 0) throw WriteError(target, "replace", errno);
    moved_ = true;
  }

  const std::string path;

 private:
  bool moved_ = false;
};

std::string temporary_name(const std::string& path) {
  static std::atomic<int> counter{0};
  return path + ".tmp-" + std::to_string(::getpid()) + "-" + std::to_string(counter++);
}

fs::path folder_of(const std::string& path) {
  const fs::path folder = fs::path(path).parent_path();
  return folder.empty() ? fs::path(".") : folder;
}

// The file a chain of symbolic links ends in, whether or not it exists yet.
std::string resolved(const std::string& path) {
  constexpr int kMostLinks = 40;  // as the kernel
  fs::path target = path;
  std::error_code error;
  for (int i = 0; i < kMostLinks; ++i) {
    if (!fs::is_symlink(fs::symlink_status(target, error))) return target.string();
    const fs::path next = fs::read_symlink(target, error);
    if (error) throw WriteError(path, "resolve", error.value());
    target = target.parent_path() / next;  // an absolute `next` replaces the whole
  }
  throw WriteError(path, "resolve", ELOOP);
}

void create_folders(const fs::path& folder) {
  std::error_code error;
  fs::create_directories(folder, error);
  if (error) throw WriteError(folder.string(), "create", error.value());
}

void replace(const std::string& target, std::string_view text) {
  const fs::path folder = folder_of(target);
  create_folders(folder);
  TemporaryFile temporary(temporary_name(target));
  Descriptor file(temporary.path, O_WRONLY | O_CREAT | O_EXCL);
  write_all(file.get(), text, target);
  file.sync();
  file.close();
  temporary.move_to(target);
  Descriptor(folder.string(), O_RDONLY | O_DIRECTORY).sync();
}

}  // namespace

void write_all(int descriptor, std::string_view text, const std::string& path) {
  while (!text.empty()) {
    const ssize_t written = ::write(descriptor, text.data(), text.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) throw WriteError(path, "write", errno);
    text.remove_prefix(static_cast<size_t>(written));
  }
}

void write_file(const std::string& path, std::string_view text) {
  const std::string target = resolved(path);
  struct stat status;
  const bool exists = ::stat(target.c_str(), &status) == 0;
  if (exists && S_ISDIR(status.st_mode)) throw WriteError(path, "replace", EISDIR);
  if (!exists || S_ISREG(status.st_mode)) return replace(target, text);
  Descriptor file(target, O_WRONLY);
  write_all(file.get(), text, target);
  file.close();
}

}  // namespace fla::reports
