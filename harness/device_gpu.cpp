// One GPU as a device: plain allocations (a pool would hide overruns), non-blocking streams, a gate to prove that calls
// return before their work begins, and the conditions under which results must not change.
#include <cuda_runtime.h>

#include <chrono>
#include <cstring>
#include <map>
#include <thread>

#include "harness/device.h"
#include "harness/gpu_kernels.h"

namespace fla::harness {
namespace {

[[noreturn]] void lost(const std::string& doing, cudaError_t error) {
  DeviceLost e;
  e.message = doing + ": " + cudaGetErrorString(error);
  throw e;
}

void require(cudaError_t error, const char* doing) {
  if (error != cudaSuccess) lost(doing, error);
}
void require(int error, const char* doing) { require(static_cast<cudaError_t>(error), doing); }

constexpr size_t kHogBytes = size_t{256} << 20;

class GpuDevice : public Device {
 public:
  explicit GpuDevice(int index) : index_(index) {
    require(cudaSetDevice(index), "select device");
    require(cudaGetDeviceProperties(&properties_, index), "device properties");
    void* flag = nullptr;
    require(cudaHostAlloc(&flag, sizeof(int), cudaHostAllocMapped), "gate flag");
    open_ = static_cast<volatile int*>(flag);
    require(cudaHostGetDevicePointer(&flag, flag, 0), "gate flag");
    device_open_ = static_cast<const volatile int*>(flag);
    stream(0);
    // Lazily loaded modules would otherwise load behind a closed gate.
    *open_ = 1;
    require(gpu::launch_gate(device_open_, stream(0)), "gate");
    synchronize();
  }
  ~GpuDevice() override {
    for (auto& [i, s] : streams_) cudaStreamDestroy(s);
    cudaFree(hog_);
    cudaFreeHost(const_cast<int*>(open_));
  }

  std::string backend() const override { return "gpu"; }

  void describe(RunInfo& info) const override {
    info.device_name = properties_.name;
    char uuid[40];
    const auto* b = reinterpret_cast<const unsigned char*>(properties_.uuid.bytes);
    std::snprintf(uuid, sizeof uuid, "GPU-%02x%02x%02x%02x", b[0], b[1], b[2], b[3]);
    info.device_uuid = uuid;
    int driver = 0, clock = 0, memory_clock = 0;
    cudaDriverGetVersion(&driver);
    cudaDeviceGetAttribute(&clock, cudaDevAttrClockRate, index_);
    cudaDeviceGetAttribute(&memory_clock, cudaDevAttrMemoryClockRate, index_);
    info.driver = std::to_string(driver / 1000) + "." + std::to_string(driver % 1000 / 10);
    info.sm = properties_.major * 10 + properties_.minor;
    info.multiprocessors = properties_.multiProcessorCount;
    info.device_memory = static_cast<int64_t>(properties_.totalGlobalMem);
    info.l2_bytes = properties_.l2CacheSize;
    info.sm_clock_max_mhz = clock / 1000.0;
    info.memory_clock_max_mhz = memory_clock / 1000.0;
  }

  size_t free_bytes() override {
    size_t free = 0, total = 0;
    require(cudaMemGetInfo(&free, &total), "free memory");
    return free;
  }

  void* allocate(size_t bytes) override {
    void* memory = nullptr;
    const cudaError_t error = cudaMalloc(&memory, bytes > 0 ? bytes : 1);
    if (error == cudaErrorMemoryAllocation) {
      cudaGetLastError();
      OutOfMemory e;
      e.need = bytes;
      e.free = free_bytes();
      throw e;
    }
    require(error, "allocate");
    return memory;
  }
  void release(void* memory) override { cudaFree(memory); }

  void upload(void* device, const void* host, size_t bytes) override {
    // A plain copy from pageable memory returns once its bytes are staged: what still travels would land on top of what a
    // kernel on a non-blocking stream has written by then.
    require(cudaMemcpyAsync(device, host, bytes, cudaMemcpyHostToDevice, cudaStreamLegacy), "upload");
    require(cudaStreamSynchronize(cudaStreamLegacy), "upload");
  }
  void download(void* host, const void* device, size_t bytes) override {
    require(cudaMemcpy(host, device, bytes, cudaMemcpyDeviceToHost), "download");
  }

  Stream stream(int index) override {
    auto [entry, fresh] = streams_.try_emplace(index, nullptr);
    if (fresh) require(cudaStreamCreateWithFlags(&entry->second, cudaStreamNonBlocking), "create stream");
    return entry->second;
  }

  void synchronize() override { require(cudaDeviceSynchronize(), "synchronize"); }

  bool returns_while_blocked(int index, const std::function<void(Stream)>& work,
                             const std::function<bool()>& untouched) override {
    using Clock = std::chrono::steady_clock;
    *open_ = 0;
    require(gpu::launch_gate(device_open_, stream(index)), "gate");
    const auto start = Clock::now();
    work(stream(index));
    const bool returned = Clock::now() - start < std::chrono::milliseconds(500);
    // Work on another stream would be done by now. Plain copies do not wait for non-blocking streams, so that
    // `untouched` can look while the gate is closed.
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
    const bool still = untouched();
    *open_ = 1;
    synchronize();
    return returned && still;
  }

  void capture_and_replay(const std::function<void(Stream)>& work, int times,
                          const std::function<void(int)>& between) override {
    Stream s = stream(0);
    cudaGraph_t graph = nullptr;
    cudaGraphExec_t replay = nullptr;
    require(cudaStreamBeginCapture(s, cudaStreamCaptureModeGlobal), "begin capture");
    try {
      work(s);
    } catch (...) {
      cudaStreamEndCapture(s, &graph);
      if (graph) cudaGraphDestroy(graph);
      throw;
    }
    require(cudaStreamEndCapture(s, &graph), "end capture");
    require(cudaGraphInstantiate(&replay, graph, 0), "instantiate graph");
    for (int i = 0; i < times; ++i) {
      between(i);
      require(cudaGraphLaunch(replay, s), "launch graph");
      require(cudaStreamSynchronize(s), "replay graph");
    }
    cudaGraphExecDestroy(replay);
    cudaGraphDestroy(graph);
  }

  void rerun_variants(const std::function<void(Stream)>& work,
                      const std::function<void(const std::string&)>& check) override {
    auto finish = [&](const char* variant) {
      synchronize();
      check(variant);
    };
    work(stream(0));
    finish("same stream");
    if (!hog_) {
      hog_ = allocate(kHogBytes);
      require(cudaMemset(hog_, 0, kHogBytes), "load");  // initcheck watches what the load reads, too
    }
    require(gpu::launch_hog(hog_, kHogBytes, 8, stream(2)), "load");
    work(stream(1));
    finish("another stream under load");
    std::exception_ptr failure;
    std::thread other([&] {
      try {
        require(cudaSetDevice(index_), "select device");
        work(stream(1));
      } catch (...) {
        failure = std::current_exception();
      }
    });
    other.join();
    if (failure) std::rethrow_exception(failure);
    finish("another host thread");
  }

 private:
  int index_;
  cudaDeviceProp properties_ = {};
  std::map<int, Stream> streams_;
  volatile int* open_ = nullptr;
  const volatile int* device_open_ = nullptr;
  void* hog_ = nullptr;
};

}  // namespace

int device_count() {
  int count = 0;
  if (cudaGetDeviceCount(&count) != cudaSuccess) {
    cudaGetLastError();
    return 0;
  }
  return count;
}

std::unique_ptr<Device> open_device(int index, std::string& why) {
  int count = 0;
  const cudaError_t error = cudaGetDeviceCount(&count);
  cudaGetLastError();
  if (error == cudaErrorInsufficientDriver) why = "the NVIDIA driver is missing or older than this build's CUDA";
  else if (error != cudaSuccess) why = cudaGetErrorString(error);
  else if (count == 0) why = "no CUDA device was found";
  else if (index < 0 || index >= count) why = "there is no CUDA device " + std::to_string(index);
  if (!why.empty()) return nullptr;
  try {
    return std::make_unique<GpuDevice>(index);
  } catch (const DeviceLost& e) {
    why = e.message;
    return nullptr;
  }
}

}  // namespace fla::harness
