// Kernels that are right or wrong on purpose: an operator of the table whose run() evaluates the reference of
// the call it finds in memory, after or before something was done to the call, to the answers or to the
// memory. Whatever the checker does around a real kernel it does around these.
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "harness/check.h"
#include "harness/evaluate.h"

namespace fla::harness {

// What a kernel writes: per field of the signature, dense, unrounded.
using Answers = Evaluation<double>;

struct Fault {
  Scalar scalar = Scalar::real;        // what the answers are computed on
  std::function<void(Problem&)> call;  // what they are computed of
  std::vector<std::string> only;       // outputs that both are about, the others are right; empty: all
  std::function<void(const Problem&, Answers&)> answers;
  // After the answers are in memory; `run` counts the launches of this check from 0.
  std::function<void(const Problem&, const Args& memory, int run)> memory;

  bool throws = false;
  bool accepts_anything = false;       // validation refuses nothing
  bool ignores_workspace = false;      // takes less than it asked for
  bool returns_first_answers = false;  // of the first call with these pointers
  bool skips_empty = false;            // writes nothing where a tensor has no elements
  bool waits = false;                  // for the device, before it returns
};

// The protocol of check_case() on this case with this kernel.
Result check_planted(const std::string& case_text, const Fault&, const CheckOptions&);
// Judges numbers alone: two runs, no reruns, relations or bad arguments.
inline constexpr CheckOptions kNumbersOnly{
    .determinism = false, .rejects = false, .extras = false, .repeat = 1};

// The call and the answers by name of the field.
std::vector<double>& real(Problem&, std::string_view field);
const std::vector<double>& real(const Problem&, std::string_view field);
std::vector<int64_t>& integer(Problem&, std::string_view field);
std::vector<double>& real(const Problem&, Answers&, std::string_view field);
template <class A>
A& arguments(Problem& p) {
  return *static_cast<A*>(p.args.get());
}
template <class A>
const A& arguments(const Problem& p) {
  return *static_cast<const A*>(p.args.get());
}

// The field with most elements among the float outputs: the one that faults are planted in.
int main_output(const Problem&);

}  // namespace fla::harness
