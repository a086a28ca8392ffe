#include "harness/replay.h"

#include <cmath>
#include <nlohmann/json.hpp>
#include <stdexcept>

#include "harness/compare.h"
#include "harness/evaluate.h"
#include "harness/trial.h"
#include "harness/verdict.h"
#include "reports/json.h"

namespace fla::harness {
namespace {

using reference::Bound;

Check judge(const std::string& name, DType dtype, const HostTensor& got, const Evaluation<Bound>& expected,
            int field) {
  const auto f = static_cast<size_t>(field);
  if (is_float(dtype)) return compare(name, dtype, got.size, got.real, expected.values[f]);
  return compare(name, got.size, got.integer, expected.integers[f]);
}

// What the kernel gives for one output, from its stored bits.
Check judge_stored(const Problem& problem, int field, const std::vector<unsigned char>& bytes,
                   const Evaluation<Bound>& expected) {
  const Field& f = problem.signature.fields[static_cast<size_t>(field)];
  const Tensor& t = problem.args.tensor(f);
  const auto elements = static_cast<size_t>(count(t));
  HostTensor got;
  got.size.assign(t.size, t.size + t.rank);
  if (is_float(t.dtype)) got.real.resize(elements);
  else got.integer.resize(elements);
  decode(t.dtype, bytes.data(), count(t), got, 0);
  return judge(f.name, t.dtype, got, expected, field);
}

void judge_kernel(const Problem& problem, Device& device, const Evaluation<Bound>& expected, Result& result) {
  Trial trial(problem, device);
  Snapshot snapshot;
  try {
    snapshot = trial.run(Poison::nan);
  } catch (const std::runtime_error& refusal) {
    Check check = verdict("run", refusal.what());
    check.status = CaseStatus::rejected;
    result.checks.push_back(check);
    return;
  }
  result.checks.push_back(verdict("guards", trial.damage()));
  result.checks.push_back(verdict("inputs_unchanged", trial.buffers.changed_input()));
  for (int i = 0; i < static_cast<int>(problem.signature.fields.size()); ++i)
    if (trial.buffers.written(i) && !snapshot.bytes[static_cast<size_t>(i)].empty())
      result.checks.push_back(judge_stored(problem, i, snapshot.bytes[static_cast<size_t>(i)], expected));
}

void conclude(Result& result) {
  result.status = result.checks.empty() ? CaseStatus::skipped : CaseStatus::passed;
  if (result.checks.empty())
    result.reason = "the file claims no output and there is no device to run the kernel on";
  for (const Check& c : result.checks) {
    if (!is_failure(c.status)) continue;
    result.status = c.status;
    result.reason = c.name + ": " + c.detail;
    return;
  }
}

}  // namespace

Result judge_replay(const std::string& path, Device* device) {
  const TensorFile file(path);
  const Replay replay = read_replay(file);
  const Problem& problem = replay.problem;
  Evaluation<Bound> expected = inputs_as<Bound>(problem);
  evaluate(problem, expected);
  Result result;
  for (const Claim& claim : replay.claims) {
    if (claim.entry.begin == claim.entry.end) continue;  // an empty tensor claims nothing
    const std::string name = "claim:" + problem.signature.fields[static_cast<size_t>(claim.field)].name;
    result.checks.push_back(
        judge(name, claim.dtype, read_host_tensor(file, claim.entry), expected, claim.field));
  }
  if (device) judge_kernel(problem, *device, expected, result);
  conclude(result);
  return result;
}

static reports::Json attribute_value(const Attribute& a, const void* args) {
  const char* at = static_cast<const char*>(args) + a.offset;
  switch (a.kind) {
    case Attribute::Kind::real: {
      const float value = *reinterpret_cast<const float*>(at);
      if (std::isinf(value)) return value > 0 ? "inf" : "-inf";  // JSON has no such numbers
      return value;
    }
    case Attribute::Kind::integer: return *reinterpret_cast<const int64_t*>(at);
    case Attribute::Kind::boolean: return *reinterpret_cast<const bool*>(at);
    case Attribute::Kind::choice: break;
  }
  return a.choices.at(static_cast<size_t>(*reinterpret_cast<const int32_t*>(at)));
}

static TensorToWrite stored(const std::string& name, DType dtype, const HostTensor& host) {
  const size_t elements = is_float(dtype) ? host.real.size() : host.integer.size();
  TensorToWrite t{name, dtype, host.size,
                  std::vector<unsigned char>(elements * static_cast<size_t>(size_of(dtype)))};
  encode(dtype, host, 0, static_cast<int64_t>(elements), t.bytes.data());
  return t;
}

void dump_case(const Case& c, const std::string& path) {
  const Problem problem = make_problem(c);
  Evaluation<double> outputs = inputs_as<double>(problem);
  evaluate(problem, outputs);
  std::vector<TensorToWrite> tensors;
  for (size_t i = 0; i < problem.signature.fields.size(); ++i) {
    const Field& field = problem.signature.fields[i];
    if (!problem.present(static_cast<int>(i))) continue;
    const Tensor& t = problem.args.tensor(field);
    if (field.role == Role::input || field.role == Role::inout)
      tensors.push_back(stored("in." + field.name, t.dtype, problem.values[i]));
    if (field.role == Role::input) continue;
    HostTensor result;
    result.size.assign(t.size, t.size + t.rank);
    result.real = outputs.values[i];
    result.integer = outputs.integers[i];
    tensors.push_back(stored("out." + field.name, is_float(t.dtype) ? DType::f64 : t.dtype, result));
  }
  reports::Json attributes = reports::Json::object();
  for (const Attribute& a : problem.signature.attributes)
    attributes[a.name] = attribute_value(a, problem.args.get());
  write_tensor_file(path, std::move(tensors),
                    {{"op", c.direction->op + "_" + c.direction->name},
                     {"attrs", reports::dump_json(attributes)},
                     {"case", c.text()}});
}

}  // namespace fla::harness
