// Timing work on the GPU: graph replay between events, behind a gate, so that no host time is inside.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "fla/tensor.h"
#include "harness/result.h"

namespace fla::harness {

// One captured graph of `calls` launches.
class Replay {
 public:
  virtual ~Replay() = default;
};

class Timer {
 public:
  virtual ~Timer() = default;
  // Captures enqueue(stream, 0), enqueue(stream, 1), ... , enqueue(stream, calls - 1).
  virtual std::unique_ptr<Replay> capture(int calls, const std::function<void(Stream, int)>& enqueue) = 0;
  // One replay, gated; microseconds per call.
  virtual double sample_us(Replay&) = 0;
  virtual double sm_clock_mhz() = 0;  // as NVML reads it now; 0 where it cannot be read
  virtual Power power() = 0;          // watts, temperature and throttle reasons now
  // Enqueues a copy of `reads` and `writes` streams of stream_bytes each within scratch memory, the `set`th of several
  // places in it; scratch is reserved by reserve().
  virtual void reserve(size_t bytes) = 0;
  virtual void enqueue_copy(Stream, int reads, int writes, size_t stream_bytes, int set) = 0;
  virtual void enqueue_nothing(Stream) = 0;
};

// Null where the program has no GPU.
std::unique_ptr<Timer> open_timer();

struct SamplingOptions {
  double noise = 0.005;       // half-width of the median's 95 % interval at which sampling stops
  double time_limit_s = 0.3;  // per round
  int least_samples = 20, most_samples = 200, rounds = 3;
};

// Samples `subjects` in turns, round by round, so that all of them see the same clocks and neighbours.
std::vector<Timing> sample_in_turns(Timer&, const std::vector<Replay*>& subjects, const SamplingOptions&);

}  // namespace fla::harness
