// What a worker process does: answers one request line with one line, the Result as JSON.
//
//   check CASE           the kernel of the case on this process's device
//   prove CASE           the references of the case, without a device
//   differentiate CASE   the same, and differences of the forward beside its derivatives
//   replay FILE          a replay file; our kernel too if there is a device
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "harness/check.h"
#include "harness/device.h"

namespace fla::harness {

class CaseRunner {
 public:
  // The device is opened by the first request that needs it; index -1: there is none.
  CaseRunner(int device_index, CheckOptions options) : device_index_(device_index), options_(options) {}

  // Never throws. A lost device gives a `crashed` result, after which this process can run nothing more.
  Result run(const std::string& request);

 private:
  Result dispatch(const std::string& verb, const std::string& subject);
  Result check(const Case&);
  Device* device(std::string& why);

  int device_index_;
  CheckOptions options_;
  std::unique_ptr<Device> device_;
};

// Answers the lines of `in` on `out` until it ends or an answer is `crashed`; returns the process's exit
// status.
int serve(int in, int out, const std::function<Result(const std::string&)>& answer);

// The process behind `fla-check --worker DEVICE REPEAT`. Answers go to what was standard output; whatever
// kernels and libraries print goes to standard error.
int worker_main(int argc, char** argv);

// What device this program would run kernels on. `backend` is empty when there is none, and `why` says so.
struct DeviceFacts {
  std::string backend, why;
  int count = 0;
  RunInfo run;  // its device fields
};
DeviceFacts look_for_device();
// The process behind `fla-check --probe`: prints the facts. A driver that crashes or hangs does so in there.
int probe_main();
DeviceFacts probe_device(const std::string& executable);

}  // namespace fla::harness
