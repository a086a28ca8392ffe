// Bad-argument tests, generated from the signature of a good call: whatever the description rules out must be
// refused with a status whose text names the argument, before anything is written.
#pragma once

#include "harness/trial.h"

namespace fla::harness {

// Check "rejects": elements = calls tried, outside = calls accepted or refused without naming the argument;
// the detail is the first of them. Calls that validation accepts are reported, never run.
Check check_rejects(Trial&);

// Whether a status text names an argument: as a word, not inside another.
bool names_argument(const std::string& text, const std::string& argument);

// The dims of a present tensor that its axes carry, in order; omitted ones left out.
std::vector<Dim> axes_of(const Field&, const Tensor&);
// Names of the present tensors that carry a dimension of the signature.
std::vector<std::string> carriers_of(const Problem&, int symbol);

}  // namespace fla::harness
