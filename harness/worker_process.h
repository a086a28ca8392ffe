// A child process that answers lines with lines over one socket: its standard input and output.
#pragma once

#include <sys/types.h>

#include <string>
#include <vector>

namespace fla::harness {

class WorkerProcess {
 public:
  // Starts `command` (a path and its arguments). Throws std::system_error when no process can be made; a
  // program that cannot be executed ends with status 127.
  explicit WorkerProcess(const std::vector<std::string>& command);
  ~WorkerProcess();  // kills it if it still runs
  WorkerProcess(const WorkerProcess&) = delete;
  WorkerProcess& operator=(const WorkerProcess&) = delete;

  pid_t pid() const { return pid_; }
  int descriptor() const { return socket_; }  // readable: call receive()

  bool send(const std::string& line);  // false when the process is gone
  enum class Received { nothing_yet, line, closed };
  Received receive(std::string& line);

  // Waits up to `grace_s` for the process to end by itself, then kills it. Says how it ended: "killed by
  // signal 11 (Segmentation fault)", "exited with status 3".
  std::string end(double grace_s);

 private:
  pid_t pid_ = -1;
  int socket_ = -1;
  std::string received_, ending_;
};

// One answer of a process started for it: the first line it gives within the time; empty, with `why` set, if
// none.
std::string first_line_of(const std::vector<std::string>& command, double timeout_s, std::string& why);

// The path of the running executable.
std::string own_executable();

}  // namespace fla::harness
