#include <cuda_runtime.h>
#include <dlfcn.h>

#include <algorithm>
#include <stdexcept>

#include "harness/gpu_kernels.h"
#include "harness/timer.h"

namespace fla::harness {
namespace {

void require(cudaError_t error, const char* doing) {
  if (error != cudaSuccess) throw std::runtime_error(std::string(doing) + ": " + cudaGetErrorString(error));
}

class GraphReplay : public Replay {
 public:
  GraphReplay(cudaGraph_t graph, int calls) : calls(calls), graph_(graph) {
    require(cudaGraphInstantiate(&exec, graph, 0), "instantiate graph");
  }
  ~GraphReplay() override {
    cudaGraphExecDestroy(exec);
    cudaGraphDestroy(graph_);
  }
  cudaGraphExec_t exec = nullptr;
  int calls;

 private:
  cudaGraph_t graph_;
};

// NVML, read only, and only where it is installed: it comes with the driver, not with the toolkit.
class Nvml {
 public:
  Nvml() {
    library_ = dlopen("libnvidia-ml.so.1", RTLD_NOW);
    if (!library_) return;
    const auto init = function<int (*)()>("nvmlInit_v2");
    const auto by_index = function<int (*)(unsigned, void**)>("nvmlDeviceGetHandleByIndex_v2");
    clock_ = function<int (*)(void*, int, unsigned*)>("nvmlDeviceGetClockInfo");
    power_ = function<int (*)(void*, unsigned*)>("nvmlDeviceGetPowerUsage");
    temperature_ = function<int (*)(void*, int, unsigned*)>("nvmlDeviceGetTemperature");
    reasons_ = function<int (*)(void*, unsigned long long*)>("nvmlDeviceGetCurrentClocksThrottleReasons");
    int device = 0;
    cudaGetDevice(&device);
    if (!init || !by_index || init() != 0 || by_index(static_cast<unsigned>(device), &device_) != 0) device_ = nullptr;
  }
  double sm_clock_mhz() const {
    unsigned mhz = 0;
    return device_ && clock_ && clock_(device_, 1, &mhz) == 0 ? mhz : 0.0;
  }
  Power power() const {
    Power p;
    unsigned value = 0;
    if (device_ && power_ && power_(device_, &value) == 0) p.watts_mean = p.watts_max = value / 1000.0;
    if (device_ && temperature_ && temperature_(device_, 0, &value) == 0) p.temperature_max = value;
    unsigned long long bits = 0;
    if (!device_ || !reasons_ || reasons_(device_, &bits) != 0) return p;
    if (bits & 0x4) p.throttle_reasons.push_back("power cap");
    if (bits & 0x8) p.throttle_reasons.push_back("hardware slowdown");
    if (bits & 0x20) p.throttle_reasons.push_back("software thermal");
    if (bits & 0x40) p.throttle_reasons.push_back("hardware thermal");
    return p;
  }

 private:
  template <class F>
  F function(const char* name) const {
    return reinterpret_cast<F>(dlsym(library_, name));
  }
  void* library_ = nullptr;
  void* device_ = nullptr;
  int (*clock_)(void*, int, unsigned*) = nullptr;
  int (*power_)(void*, unsigned*) = nullptr;
  int (*temperature_)(void*, int, unsigned*) = nullptr;
  int (*reasons_)(void*, unsigned long long*) = nullptr;
};

class GpuTimer : public Timer {
 public:
  GpuTimer() {
    require(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "create stream");
    require(cudaEventCreate(&start_), "create event");
    require(cudaEventCreate(&stop_), "create event");
    void* flag = nullptr;
    require(cudaHostAlloc(&flag, sizeof(int), cudaHostAllocMapped), "gate flag");
    open_ = static_cast<volatile int*>(flag);
    require(cudaHostGetDevicePointer(&flag, flag, 0), "gate flag");
    device_open_ = static_cast<const volatile int*>(flag);
  }
  ~GpuTimer() override {
    cudaFree(scratch_);
    cudaFreeHost(const_cast<int*>(open_));
    cudaEventDestroy(start_);
    cudaEventDestroy(stop_);
    cudaStreamDestroy(stream_);
  }

  std::unique_ptr<Replay> capture(int calls, const std::function<void(Stream, int)>& enqueue) override {
    for (int i = 0; i < std::min(calls, 2); ++i) enqueue(stream_, i);  // loads modules, which a capture may not
    require(cudaStreamSynchronize(stream_), "warm up");
    require(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeGlobal), "begin capture");
    for (int i = 0; i < calls; ++i) enqueue(stream_, i);
    cudaGraph_t graph = nullptr;
    require(cudaStreamEndCapture(stream_, &graph), "end capture");
    return std::make_unique<GraphReplay>(graph, calls);
  }

  double sample_us(Replay& subject) override {
    auto& replay = static_cast<GraphReplay&>(subject);
    // All is queued before anything starts: launch latency is over when the first event is.
    *open_ = 0;
    require(static_cast<cudaError_t>(gpu::launch_gate(device_open_, stream_)), "gate");
    require(cudaEventRecord(start_, stream_), "event");
    require(cudaGraphLaunch(replay.exec, stream_), "launch graph");
    require(cudaEventRecord(stop_, stream_), "event");
    *open_ = 1;
    require(cudaEventSynchronize(stop_), "replay");
    float ms = 0;
    require(cudaEventElapsedTime(&ms, start_, stop_), "elapsed time");
    return 1000.0 * static_cast<double>(ms) / replay.calls;
  }

  double sm_clock_mhz() override { return nvml_.sm_clock_mhz(); }
  Power power() override { return nvml_.power(); }

  void reserve(size_t bytes) override {
    if (bytes <= reserved_) return;
    cudaFree(scratch_);
    scratch_ = nullptr;
    reserved_ = 0;
    require(cudaMalloc(&scratch_, bytes), "scratch memory");
    reserved_ = bytes;
    // Not zeros: memory and caches of some parts treat those differently.
    require(cudaMemset(scratch_, 0x5b, bytes), "scratch memory");
  }

  void enqueue_copy(Stream stream, int reads, int writes, size_t stream_bytes, int set) override {
    char* at = static_cast<char*>(scratch_) + static_cast<size_t>(set) * stream_bytes * static_cast<size_t>(reads + writes);
    require(static_cast<cudaError_t>(gpu::launch_copy(reads, writes, at, at + stream_bytes * static_cast<size_t>(reads),
                                                      stream_bytes, stream)),
            "copy");
  }
  void enqueue_nothing(Stream stream) override {
    require(static_cast<cudaError_t>(gpu::launch_nothing(stream)), "empty kernel");
  }

 private:
  cudaStream_t stream_ = nullptr;
  cudaEvent_t start_ = nullptr, stop_ = nullptr;
  volatile int* open_ = nullptr;
  const volatile int* device_open_ = nullptr;
  void* scratch_ = nullptr;
  size_t reserved_ = 0;
  Nvml nvml_;
};

}  // namespace

std::unique_ptr<Timer> open_timer() {
  int devices = 0;
  if (cudaGetDeviceCount(&devices) != cudaSuccess || devices == 0) return nullptr;
  return std::make_unique<GpuTimer>();
}

}  // namespace fla::harness
