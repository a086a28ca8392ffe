// Where kernels run: one GPU, or the emulator on the CPU. Which of the two a program gets is decided at link
// time (device_gpu.cpp with fla::kernels, device_emulator.cpp with fla::kernels_emulated), because both kernel
// libraries define the same functions. The harness sees only this.
#pragma once

#include <cstddef>
#include <cstdint>
#include <exception>
#include <functional>
#include <memory>
#include <string>

#include "fla/status.h"
#include "fla/tensor.h"
#include "harness/result.h"

namespace fla::harness {

struct OutOfMemory : std::exception {
  size_t need = 0, free = 0;
  const char* what() const noexcept override { return "out of device memory"; }
};

// A sticky device fault: nothing more can be run in this process.
struct DeviceLost : std::exception {
  std::string message;
  const char* what() const noexcept override { return message.c_str(); }
};

class Device {
 public:
  virtual ~Device() = default;
  virtual std::string backend() const = 0;  // "gpu" or "emulator"
  virtual void describe(RunInfo&) const = 0;
  virtual size_t free_bytes() = 0;
  // Patterned bytes that a tensor needs before and after it. 0 where every allocation has its own red zones.
  virtual size_t guard_bytes() const { return 4096; }
  virtual void* allocate(size_t bytes) = 0;  // 256-byte aligned; throws OutOfMemory
  virtual void release(void*) = 0;
  virtual void upload(void* device, const void* host, size_t bytes) = 0;  // has arrived when it returns
  virtual void download(void* host, const void* device, size_t bytes) = 0;
  virtual Stream stream(int index) = 0;  // non-blocking streams, made on demand; the emulator's are null
  virtual void synchronize() = 0;        // throws DeviceLost

  // Runs `work` behind a closed gate on stream(index) and reports whether it returned while the gate was still
  // closed and had touched nothing by then (`untouched` is asked after a pause). The emulator runs it plainly.
  virtual bool returns_while_blocked(int index, const std::function<void(Stream)>& work,
                                     const std::function<bool()>& untouched) = 0;
  // Captures `work` into a graph and replays it `times`, calling between(i) before each replay.
  virtual void capture_and_replay(const std::function<void(Stream)>& work, int times,
                                  const std::function<void(int)>& between) = 0;
  // Reruns `work` under the conditions that must not change one bit, variant by variant ("other stream under load",
  // "other host thread" on the GPU; the schedules and block orders of the emulator). Calls check(variant) after each.
  virtual void rerun_variants(const std::function<void(Stream)>& work,
                              const std::function<void(const std::string&)>& check) = 0;
};

// The device of this program; null when there is none (no GPU): `why` then says so in a sentence.
std::unique_ptr<Device> open_device(int index, std::string& why);
int device_count();

}  // namespace fla::harness
