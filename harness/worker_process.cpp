#include "harness/worker_process.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <system_error>

namespace fla::harness {
namespace {

using Clock = std::chrono::steady_clock;

constexpr size_t kLongestAnswer = size_t{64} << 20;
constexpr double kKillGrace = 10;  // a killed process that holds a GPU context takes seconds to go

// Between fork and exec only calls that are safe after fork in a process whose libraries may have threads.
[[noreturn]] void become(char* const* arguments, int socket, pid_t parent) {
  sigset_t none;
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, nullptr);
  signal(SIGPIPE, SIG_DFL);
  signal(SIGINT, SIG_DFL);
  signal(SIGTERM, SIG_DFL);
  // A group of its own: Ctrl-C reaches the supervisor alone, which then ends its workers. A supervisor that
  // is killed takes its workers along.
  setpgid(0, 0);
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() != parent) _exit(127);
  if (dup2(socket, 0) < 0 || dup2(socket, 1) < 0) _exit(127);
  execv(arguments[0], arguments);
  _exit(127);
}

std::string describe_ending(int status) {
  if (WIFEXITED(status)) return "exited with status " + std::to_string(WEXITSTATUS(status));
  const int number = WTERMSIG(status);
  return "killed by signal " + std::to_string(number) + " (" + strsignal(number) + ")";
}

// True once the process is gone and `ending` says how.
bool reap(pid_t pid, double patience_s, std::string& ending) {
  const auto limit = Clock::now() + std::chrono::duration<double>(patience_s);
  for (;;) {
    int status = 0;
    const pid_t done = waitpid(pid, &status, WNOHANG);
    if (done == pid) {
      ending = describe_ending(status);
      return true;
    }
    if (done < 0 && errno != EINTR) {
      ending = "lost";
      return true;
    }
    if (Clock::now() >= limit) return false;
    poll(nullptr, 0, 2);
  }
}

}  // namespace

WorkerProcess::WorkerProcess(const std::vector<std::string>& command) {
  int ends[2];
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0)
    throw std::system_error(errno, std::generic_category(), "starting a worker");
  std::vector<char*> arguments;
  for (const std::string& argument : command) arguments.push_back(const_cast<char*>(argument.c_str()));
  arguments.push_back(nullptr);
  const pid_t parent = getpid();
  pid_ = fork();
  if (pid_ == 0) become(arguments.data(), ends[1], parent);
  const int error = errno;
  close(ends[1]);
  socket_ = ends[0];
  if (pid_ > 0) return;
  close(socket_);
  throw std::system_error(error, std::generic_category(), "starting a worker");
}

WorkerProcess::~WorkerProcess() {
  end(0);
  close(socket_);
}

bool WorkerProcess::send(const std::string& line) {
  const std::string text = line + "\n";
  size_t sent = 0;
  while (sent < text.size()) {
    const ssize_t n = ::send(socket_, text.data() + sent, text.size() - sent, MSG_NOSIGNAL);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return false;
    sent += static_cast<size_t>(n);
  }
  return true;
}

WorkerProcess::Received WorkerProcess::receive(std::string& line) {
  size_t end_of_line = received_.find('\n');
  if (end_of_line == std::string::npos) {
    char block[65536];
    const ssize_t n = ::recv(socket_, block, sizeof block, MSG_DONTWAIT);
    if (n < 0 && (errno == EAGAIN || errno == EINTR)) return Received::nothing_yet;
    if (n <= 0 || received_.size() > kLongestAnswer) return Received::closed;
    received_.append(block, static_cast<size_t>(n));
    end_of_line = received_.find('\n');
  }
  if (end_of_line == std::string::npos) return Received::nothing_yet;
  line = received_.substr(0, end_of_line);
  received_.erase(0, end_of_line + 1);
  return Received::line;
}

std::string WorkerProcess::end(double grace_s) {
  if (!ending_.empty()) return ending_;
  if (grace_s > 0 && reap(pid_, grace_s, ending_)) return ending_;
  kill(pid_, SIGKILL);
  if (!reap(pid_, kKillGrace, ending_)) ending_ = "does not end even when killed";
  return ending_;
}

std::string first_line_of(const std::vector<std::string>& command, double timeout_s, std::string& why) {
  WorkerProcess process(command);
  const auto limit = Clock::now() + std::chrono::duration<double>(timeout_s);
  for (;;) {
    std::string line;
    const auto received = process.receive(line);
    if (received == WorkerProcess::Received::line) return line;
    if (received == WorkerProcess::Received::closed) {
      why = process.end(1);
      return {};
    }
    const double left = std::chrono::duration<double>(limit - Clock::now()).count();
    if (left <= 0) {
      why = "no answer within " + std::to_string(static_cast<int>(timeout_s)) + " s";
      return {};
    }
    pollfd wait{process.descriptor(), POLLIN, 0};
    poll(&wait, 1, static_cast<int>(left * 1000) + 1);
  }
}

std::string own_executable() {
  char path[4096];
  const ssize_t n = readlink("/proc/self/exe", path, sizeof path);
  return n > 0 ? std::string(path, static_cast<size_t>(n)) : std::string();
}

}  // namespace fla::harness
