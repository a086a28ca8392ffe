// What a run of fla-check runs on, and which of the two programs runs it.
//
// fla-check is linked with the CUDA kernels, fla-check-emulator, beside it, with the emulated ones. Where
// kernels have to be emulated the first becomes the second. Without CUDA in the build both are the emulated
// one.
#pragma once

#include <exception>
#include <string>
#include <vector>

#include "harness/worker.h"

namespace fla::harness {

// A GPU was asked for and there is none; exit code 3.
struct NoDevice : std::exception {
  explicit NoDevice(std::string m) : message(std::move(m)) {}
  const char* what() const noexcept override { return message.c_str(); }
  std::string message;
};

struct BackendWish {
  std::string backend;  // "gpu", "emulator", "reference"; empty: kernels where they can run, and references
  std::string fallback_reason;  // why this program was started in the place of another
  bool require_gpu = false, isolate = true;
};

struct Backends {
  std::string kernels;  // "gpu", "emulator"; empty: none
  bool references = false;
  DeviceFacts device;
  std::string note;  // in a sentence, why kernels do not run on a GPU; empty when they do or nobody asked
};

// Throws NoDevice. Does not return when another program takes over.
Backends choose_backends(const BackendWish&, char** argv);

// "all" or "0,2": indices below `count`, one for every worker. Throws UsageError.
std::vector<int> parse_devices(const std::string& text, int count);

}  // namespace fla::harness
