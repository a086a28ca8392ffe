#include "harness/every_input.h"

#include <chrono>
#include <cstdio>
#include <cstdlib>

#include "harness/generate.h"
#include "harness/judge.h"
#include "harness/trial.h"
#include "harness/verdict.h"

namespace fla::harness {
namespace {

std::vector<const Field*> walked_fields(const Problem& p) {
  std::vector<const Field*> fields;
  for (const Field& f : p.signature.fields)
    if (f.role == Role::input && p.args.tensor(f) && !is_upstream(p, f)) fields.push_back(&f);
  return fields;
}

// The tally of a device, in its memory.
class DeviceTally {
 public:
  explicit DeviceTally(Device& device)
      : device_(device), memory_(static_cast<EveryInputTally*>(device.allocate(sizeof(EveryInputTally)))) {
    clear();
  }
  ~DeviceTally() { device_.release(memory_); }
  DeviceTally(const DeviceTally&) = delete;
  DeviceTally& operator=(const DeviceTally&) = delete;

  EveryInputTally* memory() const { return memory_; }
  void clear() {
    const EveryInputTally zero;
    device_.upload(memory_, &zero, sizeof zero);
  }
  EveryInputTally read() const {
    EveryInputTally tally;
    device_.synchronize();
    device_.download(&tally, memory_, sizeof tally);
    return tally;
  }

 private:
  Device& device_;
  EveryInputTally* memory_;
};

// "x = 0x3f80, y = 0x0001"
std::string input_text(const Problem& p, uint64_t number) {
  const uint32_t word = input_bits(number);
  const auto fields = walked_fields(p);
  std::string text;
  for (size_t i = 0; i < fields.size(); ++i) {
    const bool half = fields.size() == 2;
    char bits[16];
    std::snprintf(bits, sizeof bits, half ? "0x%04x" : "0x%08x", half ? (i == 0 ? word >> 16 : word & 0xffff) : word);
    text += (i > 0 ? ", " : "") + fields[i]->name + " = " + bits;
  }
  return text;
}

class EveryInputCheck {
 public:
  EveryInputCheck(const Case& c, Device& device)
      : problem_(make_problem(c)), trial_(problem_, device), tally_(device), every_(*c.direction->every) {
    slice_ = element_count(problem_.args.tensor(*walked_fields(problem_).front()));
    const auto slices = c.find("slices");
    slices_ = slices ? std::strtoll(std::string(*slices).c_str(), nullptr, 10) : ((int64_t{1} << 32) + slice_ - 1) / slice_;
  }

  std::vector<Check> run() {
    trial_.prepare(Poison::nan);
    Check c = verdict("every_input", "");
    int64_t worst_slice = -1;
    for (int64_t s = 0; s < slices_; ++s) {
      const EveryInputTally found = judge(s, 0, slice_);
      if (found.outside > 0 && worst_slice < 0) worst_slice = s, first_ = static_cast<int64_t>(found.first);
      c.outside += static_cast<int64_t>(found.outside);
      c.elements += slice_;
    }
    if (worst_slice >= 0) explain(c, worst_slice);
    return {c, verdict("guards", trial_.damage())};
  }

 private:
  uint64_t number(int64_t slice, int64_t element) const { return static_cast<uint64_t>(slice * slice_ + element); }

  EveryInputTally judge(int64_t slice, int64_t from, int64_t to) {
    const Stream stream = trial_.device.stream(0);
    tally_.clear();
    every_.fill(trial_.buffers.args().get(), number(slice, 0), stream);
    if (const Status status = trial_.launch(stream); !status.ok())
      throw std::runtime_error(std::string("refused: ") + status.text);
    every_.judge(trial_.buffers.args().get(), from, to, tally_.memory(), stream);
    return tally_.read();
  }

  void explain(Check& c, int64_t slice) {
    const EveryInputTally one = judge(slice, first_, first_ + 1);
    c.status = CaseStatus::failed;
    c.got = one.got;
    c.expected = one.expected;
    c.bound = one.bound;
    char numbers[128];
    std::snprintf(numbers, sizeof numbers, ": got %.9g, expected %.9g +- %.9g", one.got, one.expected, one.bound);
    c.detail = std::to_string(c.outside) + " outputs of " + std::to_string(c.elements) + " inputs are wrong, first at " +
               input_text(problem_, number(slice, first_)) + numbers;
  }

  Problem problem_;
  Trial trial_;
  DeviceTally tally_;
  const EveryInput& every_;
  int64_t slice_ = 1, slices_ = 1, first_ = 0;
};

}  // namespace

std::string why_not_every_input(const Problem& p) {
  if (!p.origin.direction->every) return p.origin.direction->key() + " has no judge for every input";
  int64_t bits = 0;
  for (const Field* f : walked_fields(p)) bits += 8 * size_of(p.args.tensor(*f).dtype);
  if (bits == 32 && largest_tensor(p) > 0) return {};
  return "the inputs of an element have " + std::to_string(bits) + " bits, not 32, or there is no element";
}

Result check_every_input(const Case& c, Device& device) {
  const auto start = std::chrono::steady_clock::now();
  Result r = begin_result(c, device.backend());
  if (device.backend() != "gpu" && !c.find("slices")) {
    r.status = CaseStatus::skipped;
    r.reason = "2^32 inputs need a GPU, or slices=N";
    return r;
  }
  r.checks = EveryInputCheck(c, device).run();
  finish_result(r);
  r.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return r;
}

}  // namespace fla::harness
