#include "harness/device_lock.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cctype>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <sstream>
#include <vector>

namespace fla::harness {
namespace {

// Of another user's file in a sticky folder the system refuses to open with O_CREAT, and one that may only be read can
// be locked too.
int open_lock(const std::string& path) {
  int file = ::open(path.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0666);
  if (file >= 0) ::fchmod(file, 0666);
  if (file < 0 && errno == EEXIST) file = ::open(path.c_str(), O_RDWR | O_CLOEXEC | O_NOFOLLOW);
  if (file < 0 && errno == EACCES) file = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
  return file;
}

std::string own_name() {
  std::string command;
  std::ifstream comm("/proc/self/comm");
  std::getline(comm, command);
  return command + ", process " + std::to_string(::getpid());
}

void write_holder(int file) {
  const std::string name = own_name();
  // Without it the next one waits for "another process".
  if (::ftruncate(file, 0) != 0 || ::pwrite(file, name.data(), name.size(), 0) < 0) return;
}

std::string read_holder(int file) {
  char text[128];
  const ssize_t length = ::pread(file, text, sizeof text, 0);
  std::string name;
  for (ssize_t i = 0; i < length && text[i] >= ' ' && text[i] <= '~'; ++i) name += text[i];
  return name.empty() ? "another process" : name;
}

}  // namespace

DeviceLock::DeviceLock(const std::string& device, DeviceUse use,
                       const std::function<void(const std::string&)>& waiting, const std::string& folder)
    : file_(open_lock(folder + "/fla-gpu-" + device + ".lock")) {
  if (file_ < 0) return;
  const int operation = use == DeviceUse::alone ? LOCK_EX : LOCK_SH;
  if (::flock(file_, operation | LOCK_NB) != 0) {
    waiting(read_holder(file_));
    if (::flock(file_, operation) != 0) return;  // interrupted: so is the program
  }
  write_holder(file_);
}

DeviceLock::~DeviceLock() {
  if (file_ >= 0) ::close(file_);
}

std::string machine_name_of_device(int index) {
  const char* visible = std::getenv("CUDA_VISIBLE_DEVICES");
  std::vector<std::string> names;
  std::istringstream list(visible ? visible : "");
  for (std::string name; std::getline(list, name, ',');) names.push_back(name);
  const bool renumbered = index >= 0 && static_cast<size_t>(index) < names.size();
  std::string name = renumbered ? names[static_cast<size_t>(index)] : std::to_string(index);
  for (char& c : name)
    if (!std::isalnum(static_cast<unsigned char>(c))) c = '-';
  return name;
}

DeviceLock lock_device(const char* program, int index, DeviceUse use) {
  return DeviceLock(machine_name_of_device(index), use, [&](const std::string& holder) {
    std::fprintf(stderr, "%s: waiting for GPU %d, which %s is using\n", program, index, holder.c_str());
  });
}

}  // namespace fla::harness
