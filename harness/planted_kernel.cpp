#include "harness/planted_kernel.h"

#include <algorithm>
#include <cstring>
#include <list>
#include <stdexcept>

#include "harness/host_device.h"
#include "harness/strided.h"

namespace fla::harness {
namespace {

// The fault of the check in progress. run() and validate() of a Direction are plain functions.
struct Planted {
  const Direction* original = nullptr;
  const Fault* fault = nullptr;
  Args pattern;  // attributes and size of the argument struct
  int runs = 0;
  Answers first_answers;
};
Planted planted;

HostTensor load(const Tensor& t) {
  HostTensor host;
  const auto n = static_cast<size_t>(count(t));
  host.size.assign(t.size, t.size + t.rank);
  (is_float(t.dtype) ? host.real.resize(n) : host.integer.resize(n));
  const Strided elements(t);
  const int64_t size = size_of(t.dtype);
  std::vector<unsigned char> dense;
  for (const Chunk& c : elements.chunks(int64_t{1} << 20)) {
    dense.resize(static_cast<size_t>(c.count * size));
    elements.gather(c, size, static_cast<const unsigned char*>(t.data) + c.memory_first * size, dense.data());
    decode(t.dtype, dense.data(), c.count, host, c.first);
  }
  const bool broadcast = elements.count() == 1 && n > 1;
  if (broadcast && is_float(t.dtype)) std::fill(host.real.begin(), host.real.end(), host.real.front());
  return host;
}

void store(const Tensor& t, const HostTensor& host) {
  const Strided elements(t);
  const int64_t size = size_of(t.dtype);
  std::vector<unsigned char> dense;
  for (const Chunk& c : elements.chunks(int64_t{1} << 20)) {
    dense.resize(static_cast<size_t>(c.count * size));
    encode(t.dtype, host, c.first, c.count, dense.data());
    elements.scatter(c, size, dense.data(), static_cast<unsigned char*>(t.data) + c.memory_first * size);
  }
}

Problem call_in(const Args& memory) {
  Problem p;
  p.origin.direction = planted.original;
  p.args = memory;
  p.signature = planted.original->signature(p.args.get());
  p.values.resize(p.signature.fields.size());
  for (size_t f = 0; f < p.signature.fields.size(); ++f) {
    const Field& field = p.signature.fields[f];
    const bool is_read = field.role == Role::input || field.role == Role::inout;
    if (is_read && p.present(static_cast<int>(f))) p.values[f] = load(p.args.tensor(field));
  }
  return p;
}

template <class S>
Answers evaluated(const Problem& p) {
  Evaluation<S> e = inputs_as<S>(p);
  evaluate(p, e);
  Answers a;
  a.integers = std::move(e.integers);
  a.values.resize(e.values.size());
  for (size_t f = 0; f < e.values.size(); ++f)
    for (const S& x : e.values[f]) a.values[f].push_back(reference::value(x));
  return a;
}

Answers answers_on(Scalar scalar, const Problem& p) {
  switch (scalar) {
    case Scalar::single:
      return evaluated<reference::Single>(p);
    case Scalar::single_serial:
      return evaluated<reference::SingleSerial>(p);
    case Scalar::single_bf16_sum:
      return evaluated<reference::SingleBf16Sum>(p);
    default:
      return evaluated<double>(p);
  }
}

Answers faulty_answers(const Problem& call, const Fault& fault) {
  Problem altered = call;
  if (fault.call) fault.call(altered);
  Answers a = answers_on(fault.scalar, altered);
  if (!fault.only.empty()) {
    Answers right = answers_on(Scalar::single, call);
    for (const std::string& name : fault.only) std::swap(real(call, right, name), real(call, a, name));
    a = std::move(right);
  }
  if (fault.answers) fault.answers(call, a);
  return a;
}

Status workspace_too_small() {
  Status status;
  status.code = StatusCode::workspace_too_small;
  std::strcpy(status.text, "workspace: too small");
  return status;
}

bool has_empty_tensor(const Problem& p) {
  return std::any_of(p.signature.fields.begin(), p.signature.fields.end(),
                     [&](const Field& f) { return p.args.tensor(f) && count(p.args.tensor(f)) == 0; });
}

Args memory_at(const void* raw) {
  Args memory = planted.pattern;
  for (const Field& f : planted.original->signature(memory.get()).fields)
    std::memcpy(&memory.tensor(f), static_cast<const char*>(raw) + f.offset, sizeof(Tensor));
  return memory;
}

void write_answers(const Problem& call, const Answers& a) {
  for (size_t f = 0; f < call.signature.fields.size(); ++f) {
    const Field& field = call.signature.fields[f];
    if (field.role == Role::input || !call.present(static_cast<int>(f))) continue;
    HostTensor host;
    host.real = a.values[f];
    host.integer = a.integers[f];
    store(call.args.tensor(field), host);
  }
}

// What the operators give that a fused one is made of: nothing is planted in them.
Status run_unfused(const void* raw, Stream) {
  const Problem call = call_in(memory_at(raw));
  write_answers(call, answers_on(planted.fault->scalar, call));
  return {};
}

Status run_planted(const void* raw, Workspace workspace, Stream) {
  const Fault& fault = *planted.fault;
  const Status status = planted.original->validate(raw);
  if (!status.ok()) return fault.accepts_anything ? Status() : status;
  if (workspace.bytes < planted.original->workspace_bytes(raw) && !fault.ignores_workspace)
    return workspace_too_small();
  if (fault.throws) throw std::runtime_error("out of bounds read, planted");

  const Args memory = memory_at(raw);
  const Problem call = call_in(memory);
  const int run = planted.runs++;
  if (fault.skips_empty && has_empty_tensor(call)) return {};
  Answers a = faulty_answers(call, fault);
  if (run == 0) planted.first_answers = a;
  if (fault.returns_first_answers) a = planted.first_answers;
  write_answers(call, a);
  if (fault.memory) fault.memory(call, memory, run);
  return {};
}

Status validate_planted(const void* raw) {
  return planted.fault->accepts_anything ? Status() : planted.original->validate(raw);
}

// A direction of the table with the planted kernel in it. Cases point at it, so it stays for good.
const Direction& direction_of(const Direction& original) {
  static std::list<Direction> made;
  for (const Direction& d : made)
    if (d.key() == original.key()) return d;
  made.push_back(original);
  made.back().run = run_planted;
  if (original.unfused) made.back().unfused = run_unfused;
  made.back().validate = validate_planted;
  return made.back();
}

size_t index_in(const Problem& p, std::string_view field) {
  const int index = p.index_of(field);
  if (index < 0) throw std::logic_error("self-test: no tensor " + std::string(field));
  return static_cast<size_t>(index);
}

}  // namespace

Result check_planted(const std::string& case_text, const Fault& fault, const CheckOptions& options) {
  Case c = parse_case(case_text);
  planted = {c.direction, &fault, make_problem(c, false).args, 0, {}};
  c.direction = &direction_of(*c.direction);
  HostDevice memory;
  memory.blocks = !fault.waits;
  return check_case(c, memory, options);
}

std::vector<double>& real(Problem& p, std::string_view field) {
  return p.values[index_in(p, field)].real;
}
const std::vector<double>& real(const Problem& p, std::string_view field) {
  return p.values[index_in(p, field)].real;
}
std::vector<int64_t>& integer(Problem& p, std::string_view field) {
  return p.values[index_in(p, field)].integer;
}
std::vector<double>& real(const Problem& p, Answers& a, std::string_view field) {
  return a.values[index_in(p, field)];
}

int main_output(const Problem& p) {
  int best = -1;
  int64_t most = 0;
  for (size_t f = 0; f < p.signature.fields.size(); ++f) {
    const Field& field = p.signature.fields[f];
    const Tensor& t = p.args.tensor(field);
    if (field.role == Role::input || !t || !is_float(t.dtype) || count(t) <= most) continue;
    best = static_cast<int>(f);
    most = count(t);
  }
  return best;
}

}  // namespace fla::harness
