// Measuring one case: proof first, then time beside the copy that moves the same bytes.
#pragma once

#include "harness/case.h"
#include "harness/device.h"
#include "harness/timer.h"

namespace fla::harness {

struct BenchOptions {
  bool cold = true, hot = true;
  bool unproven = false;     // print times without a proof
  bool prove_large = false;  // also where that takes minutes
  SamplingOptions sampling;
};

// Above this share of the ceiling something was skipped or cached: the row is marked, not celebrated.
inline constexpr double kImplausible = 1.05;

// On the GPU. Never throws for what the kernel does.
Result bench_case(const Case&, Device&, Timer&, const RunInfo&, const BenchOptions&);

// The reference on the CPU, double precision, one thread.
Result bench_reference(const Case&, const BenchOptions&);

// Copy curve, mixes, the cost of an empty launch.
Calibration calibrate(Timer&, const RunInfo&);

}  // namespace fla::harness
