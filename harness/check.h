// The correctness protocol of one case (reliability-and-numerics.md 2.1, anchors-harness.md 5.5 and 5.8).
#pragma once

#include "harness/case.h"
#include "harness/device.h"
#include "harness/result.h"

namespace fla::harness {

struct CheckOptions {
  bool determinism = true, rejects = true, extras = true;  // fla-bench's proof leaves these out
  int repeat = 1;
};

// Runs the kernel of this case on `device` and judges it against the reference. Never throws for what the kernel
// does; throws DeviceLost when the device is gone, OutOfMemory when the case does not fit.
Result check_case(const Case&, Device& device, const CheckOptions&);

// Proves the reference itself: the backward text against Dual numbers of the forward text, for every differentiable
// input, alone and jointly; saved statistics included. For directions without a backward: evaluates double, Bound
// and float and checks that they agree. With `differences`, the forward text's differences are asked too. Needs no
// device.
Result check_reference(const Case&, bool differences);

}  // namespace fla::harness
