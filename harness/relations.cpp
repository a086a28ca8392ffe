#include "harness/relations.h"

#include <algorithm>
#include <set>

#include "harness/judge.h"
#include "harness/rejects.h"
#include "harness/verdict.h"

namespace fla::harness {
namespace {

// Runs the case with dimension `symbol` set to 0. Empty when it behaved.
std::string empty_dimension(const Problem& problem, int symbol, Device& device) {
  const std::string& name = problem.signature.dims[static_cast<size_t>(symbol)].name;
  std::map<std::string, std::string> values(problem.origin.values.begin(), problem.origin.values.end());
  values[name] = "0";
  values.erase("lens");  // lengths of a packed sequence cannot add up to another total
  const Case empty =
      make_case(*problem.origin.direction, values, "the empty form of " + problem.origin.text());

  const Problem shapes = make_problem(empty, false);
  const Trial unfilled(shapes, device);
  const Status status = empty.direction->validate(unfilled.buffers.args().get());
  if (!status.ok()) {
    std::vector<std::string> names = carriers_of(shapes, symbol);
    names.push_back(name);
    const auto named = [&](const std::string& n) { return names_argument(status.text, n); };
    if (std::any_of(names.begin(), names.end(), named)) return {};
    return name + " = 0: refused, but \"" + status.text + "\" names no argument that has it";
  }
  const Problem filled = make_problem(empty);
  Trial trial(filled, device);
  const Snapshot got = trial.run(Poison::nan);
  if (std::string where = trial.damage(); !where.empty()) return name + " = 0: " + where;
  std::vector<Check> checks;
  judge(sampled(filled), got, checks);
  for (const Check& c : checks)
    if (c.status == CaseStatus::failed) return name + " = 0: " + c.name + " " + c.detail;
  return {};
}

// One index of an axis of a dense array, `width` array entries per element of the tensor.
template <class T>
std::vector<T> slice(const std::vector<T>& dense, const Tensor& t, int axis, int64_t index, int64_t width) {
  int64_t outer = 1, inner = width;
  for (int i = 0; i < axis; ++i) outer *= t.size[i];
  for (int i = axis + 1; i < t.rank; ++i) inner *= t.size[i];
  std::vector<T> part;
  for (int64_t o = 0; o < outer; ++o) {
    const auto from = dense.begin() + (o * t.size[axis] + index) * inner;
    part.insert(part.end(), from, from + inner);
  }
  return part;
}

// The problem that one row is by itself, with the values it has in the whole.
Problem one_row(const Problem& whole, int64_t row) {
  Problem chosen = whole;
  chosen.sample = {row};
  for (size_t f = 0; f < whole.signature.fields.size(); ++f) {
    HostTensor& values = chosen.values[f];
    if (values.real.empty() && values.integer.empty()) continue;
    const int axis = sample_axis(whole, static_cast<int>(f));
    if (axis < 0) continue;
    const Tensor& t = whole.args.tensor(whole.signature.fields[f]);
    if (!values.real.empty()) values.real = slice(values.real, t, axis, row, 1);
    if (!values.integer.empty()) values.integer = slice(values.integer, t, axis, row, 1);
    values.size[static_cast<size_t>(axis)] = 1;
  }
  return sampled(chosen);
}

std::string row_alone(const Problem& problem, Device& device, const Snapshot& first, int64_t row) {
  const Problem alone = one_row(problem, row);
  Trial trial(alone, device);
  const Snapshot got = trial.run(Poison::nan);
  for (size_t f = 0; f < problem.signature.fields.size(); ++f) {
    const Field& field = problem.signature.fields[f];
    if (field.role == Role::input || !problem.present(static_cast<int>(f))) continue;
    const int axis = sample_axis(problem, static_cast<int>(f));
    if (axis < 0) continue;
    const Tensor& t = problem.args.tensor(field);
    if (got.bytes[f] != slice(first.bytes[f], t, axis, row, size_of(t.dtype)))
      return field.name + " of row " + std::to_string(row) + " has other bits when alone";
  }
  return {};
}

// Padding and odd bases may put a row on another path than its dense copy; the promise is about equal
// layouts.
bool plain_layout(const Problem& problem) {
  return std::none_of(problem.origin.values.begin(), problem.origin.values.end(),
                      [](const auto& v) { return v.first.find('.') != std::string::npos; });
}

}  // namespace

Check check_empty(const Problem& problem, Device& device) {
  Check check = verdict("empty", "");
  for (size_t d = 0; d < problem.signature.dims.size(); ++d) {
    const auto extent = problem.dims.find(problem.signature.dims[d].name);
    if (extent == problem.dims.end() || extent->second == 0) continue;
    std::string where;
    try {
      where = empty_dimension(problem, static_cast<int>(d), device);
    } catch (const UsageError& e) {
      continue;  // the case's other values rule this dimension's 0 out; nobody can call it
    }
    ++check.elements;
    if (!where.empty() && ++check.outside == 1) check.detail = where;
  }
  if (check.outside > 0) check.status = CaseStatus::failed;
  return check;
}

Check check_dropped_outputs(Trial& trial, const Snapshot& first) {
  Check check = verdict("dropped_outputs", "");
  const Problem& problem = trial.problem;
  const Direction& direction = *problem.origin.direction;
  for (size_t f = 0; f < problem.signature.fields.size(); ++f) {
    const Field& field = problem.signature.fields[f];
    if (!trial.buffers.written(static_cast<int>(f)) || field.presence == Presence::required) continue;
    Args args = trial.buffers.args();
    args.tensor(field) = Tensor{};
    const size_t workspace = direction.workspace_bytes(args.get());
    if (!direction.validate(args.get()).ok() || workspace > trial.workspace_bytes()) continue;
    trial.prepare(check.elements % 2 ? Poison::large : Poison::nan);
    const Status status = trial.launch(args, workspace, trial.device.stream(0));
    trial.device.synchronize();
    Snapshot got = trial.buffers.read();
    got.bytes[f] = first.bytes[f];
    std::string where =
        status.ok() ? difference(problem, first, got) : std::string("refused: ") + status.text;
    if (where.empty()) where = trial.damage();
    ++check.elements;
    if (!where.empty() && ++check.outside == 1) check.detail = "without " + field.name + ", " + where;
  }
  if (check.outside > 0) check.status = CaseStatus::failed;
  return check;
}

Check check_unfused(Trial& trial, const Snapshot& first) {
  Check check = verdict("relation:unfused", "");
  const Problem& p = trial.problem;
  for (const Field& f : p.signature.fields) {
    const bool has_no_mate = !f.with.empty() && !p.args.tensor(*p.signature.field(f.with));
    if (f.role == Role::input || p.args.tensor(f) || has_no_mate) continue;
    check.status = CaseStatus::skipped;
    check.detail = "has no " + f.name;
    return check;
  }
  trial.prepare(Poison::large);
  const Status status = p.origin.direction->unfused(trial.buffers.args().get(), trial.device.stream(0));
  trial.device.synchronize();
  const std::string where =
      status.ok() ? difference(p, first, trial.buffers.read()) : std::string("refused: ") + status.text;
  check = verdict("relation:unfused", where);
  check.elements = largest_tensor(p);
  return check;
}

Check check_rows_alone(const Problem& problem, Device& device, const Snapshot& first) {
  const int64_t rows = problem.dims.at(problem.origin.direction->sample_dim);
  Check check = verdict("relation:rows_alone", "");
  if (!plain_layout(problem)) {
    check.status = CaseStatus::skipped;
    check.detail = "a row has another layout when alone";
    return check;
  }
  for (const int64_t row : std::set<int64_t>{0, rows / 2, rows - 1}) {
    const std::string where = row_alone(problem, device, first, row);
    ++check.elements;
    if (!where.empty() && ++check.outside == 1) check.detail = where;
  }
  if (check.outside > 0) check.status = CaseStatus::failed;
  return check;
}

}  // namespace fla::harness
