// Memory of this process as a device, for kernels that are plain functions: of tests, and of the self-test. It calls itself a GPU
// so that every check of the protocol is made.
#pragma once

#include <cstdlib>
#include <cstring>

#include "harness/device.h"

namespace fla::harness {

class HostDevice : public Device {
 public:
  std::string name = "gpu";
  size_t free = size_t{1} << 30;
  int64_t fail_at = -1;  // which allocation from now on fails
  bool blocks = true;    // whether calls are found to return before the gate opens
  int64_t live = 0;      // allocations not yet released

  std::string backend() const override { return name; }
  void describe(RunInfo&) const override {}
  size_t free_bytes() override { return free; }
  void* allocate(size_t bytes) override {
    void* p = nullptr;
    if (fail_at-- == 0) throw OutOfMemory();
    if (posix_memalign(&p, 256, bytes ? bytes : 1) != 0) throw OutOfMemory();
    ++live;
    return p;
  }
  void release(void* p) override {
    --live;
    std::free(p);
  }
  void upload(void* device, const void* host, size_t bytes) override { std::memcpy(device, host, bytes); }
  void download(void* host, const void* device, size_t bytes) override { std::memcpy(host, device, bytes); }
  Stream stream(int) override { return nullptr; }
  void synchronize() override {}
  bool returns_while_blocked(int, const std::function<void(Stream)>& work,
                             const std::function<bool()>& untouched) override {
    const bool before = untouched();
    work(nullptr);
    return before && blocks;
  }
  void capture_and_replay(const std::function<void(Stream)>& work, int times,
                          const std::function<void(int)>& between) override {
    for (int i = 0; i < times; ++i) {
      between(i);
      work(nullptr);
    }
  }
  void rerun_variants(const std::function<void(Stream)>& work,
                      const std::function<void(const std::string&)>& check) override {
    for (const char* variant : {"once more", "and again"}) {
      work(nullptr);
      check(variant);
    }
  }
};

}  // namespace fla::harness
