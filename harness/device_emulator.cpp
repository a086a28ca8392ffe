// The emulator as a device: device memory is host memory, launches have ended when they return. What it
// cannot show (asynchrony, streams, graphs) it runs plainly; what only it can show are the schedules of
// threads and blocks.
#include <unistd.h>

#include <cstdlib>
#include <cstring>
#include <fstream>

#include "emulator/settings.h"
#include "harness/device.h"

namespace fla::harness {
namespace {

namespace emulator = detail::emulator;

#if defined(__SANITIZE_ADDRESS__)
#define FLA_RED_ZONES 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define FLA_RED_ZONES 1
#endif
#endif

constexpr size_t kAlignment = 256;

struct NamedSchedule {
  emulator::Schedule schedule;
  const char* name;
};
constexpr NamedSchedule kSchedules[] = {{emulator::Schedule::round_robin, "round robin"},
                                        {emulator::Schedule::warps_ascending, "warps ascending"},
                                        {emulator::Schedule::warps_descending, "warps descending"},
                                        {emulator::Schedule::random, "random schedule"}};

struct NamedOrder {
  emulator::BlockOrder order;
  const char* name;
};
constexpr NamedOrder kOrders[] = {{emulator::BlockOrder::forward, "blocks forward"},
                                  {emulator::BlockOrder::reverse, "blocks in reverse"},
                                  {emulator::BlockOrder::random, "blocks in random order"}};

int64_t memory_line(const std::string& wanted) {
  std::ifstream info("/proc/meminfo");
  std::string key, unit;
  int64_t kilobytes = 0;
  while (info >> key >> kilobytes && std::getline(info, unit))
    if (key == wanted) return kilobytes * 1024;
  return 0;
}

class EmulatorDevice : public Device {
 public:
  std::string backend() const override { return "emulator"; }
  void describe(RunInfo& info) const override {
    info.device_name = "cpu";
    info.device_memory = memory_line("MemTotal:");
    info.multiprocessors = static_cast<int>(sysconf(_SC_NPROCESSORS_ONLN));
  }

  // The references need memory too, several times that of the tensors.
  size_t free_bytes() override { return static_cast<size_t>(memory_line("MemAvailable:") / 2); }

#if defined(FLA_RED_ZONES)
  // Exact allocations: the sanitizer sees reads past the end as well as writes.
  size_t guard_bytes() const override { return 0; }
#endif

  void* allocate(size_t bytes) override {
    OutOfMemory error;
    error.need = bytes;
    error.free = free_bytes();
    if (emulator::fault_at("alloc") == "oom") throw error;
    void* memory = nullptr;
    if (posix_memalign(&memory, kAlignment, bytes > 0 ? bytes : 1) != 0) throw error;
    return memory;
  }
  void release(void* memory) override { std::free(memory); }

  void upload(void* device, const void* host, size_t bytes) override { std::memcpy(device, host, bytes); }
  void download(void* host, const void* device, size_t bytes) override { std::memcpy(host, device, bytes); }

  Stream stream(int) override { return nullptr; }
  void synchronize() override {
    if (emulator::fault_at("sync") != "lost") return;
    DeviceLost lost;
    lost.message = "planned by FLA_FAULT";
    throw lost;
  }

  bool returns_while_blocked(int, const std::function<void(Stream)>& work,
                             const std::function<bool()>&) override {
    work(nullptr);
    return true;
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
    for (const NamedSchedule& s : kSchedules)
      for (const NamedOrder& o : kOrders) {
        emulator::Settings settings = emulator::current_settings();
        settings.schedule = s.schedule;
        settings.block_order = o.order;
        {
          const emulator::UseSettings use(settings);
          work(nullptr);
        }
        check(std::string(s.name) + ", " + o.name);
      }
  }
};

}  // namespace

std::unique_ptr<Device> open_device(int, std::string&) { return std::make_unique<EmulatorDevice>(); }
int device_count() { return 1; }

}  // namespace fla::harness
