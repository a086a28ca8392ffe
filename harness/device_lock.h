// One GPU, one measurement: fla-bench has a GPU to itself while it runs, fla-check shares it with other checks. Advisory,
// between processes of one machine, released by the system however a process ends.
#pragma once

#include <functional>
#include <string>

namespace fla::harness {

enum class DeviceUse { alone, shared };

class DeviceLock {
 public:
  // Waits until the device is free for this use; `waiting` is told once who has it ("fla-bench, process 123"). Where no
  // lock file can be had in `folder`, the device counts as free.
  DeviceLock(const std::string& device, DeviceUse use, const std::function<void(const std::string& holder)>& waiting,
             const std::string& folder = "/tmp");
  DeviceLock(DeviceLock&& other) noexcept : file_(other.file_) { other.file_ = -1; }
  ~DeviceLock();

 private:
  int file_ = -1;
};

// What device `index` of this process is called by all of them: CUDA_VISIBLE_DEVICES renumbers.
std::string machine_name_of_device(int index);

// Takes the lock for a program, which tells its user when it has to wait.
DeviceLock lock_device(const char* program, int index, DeviceUse use);

}  // namespace fla::harness
