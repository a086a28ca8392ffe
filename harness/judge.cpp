#include "harness/judge.h"

#include <algorithm>
#include <cstdlib>

#include "harness/compare.h"
#include "harness/verdict.h"

namespace fla::harness {

int64_t element_count(const Tensor& t) { return t ? count(t) : 0; }

int64_t largest_tensor(const Problem& problem) {
  int64_t largest = 0;
  for (const Field& f : problem.signature.fields)
    largest = std::max(largest, element_count(problem.args.tensor(f)));
  return largest;
}

// 0.9 also for ordinary numbers: the carried state of a sequence shorter than its taps is three quarters
// zeros. Above 0.9 a fill has few distinct values by design; at 1 it may have one.
double allowed_zero_share(const Case& c) {
  const auto fill = c.find("fill").value_or("normal");
  double share = 0.9;
  if (fill == "zeros" || fill == "constant") share = 1;
  const bool few =
      fill == "exact" || fill == "masked" || fill == "ties" || fill == "specials" || fill == "extremes" ||
      fill == "scaled" || fill == "gates";
  if (few || c.text().find(".broadcast=") != std::string::npos) share = std::max(share, 0.98);
  if (const auto ignored = c.find("ignore")) {
    const double p = std::atof(std::string(*ignored).c_str());
    share = 1 - (1 - p) * (1 - share);
  }
  return share;
}

namespace {

// An in-place result that equals what its memory held before would pass without any kernel.
Check check_changed(const Problem& judged, int field, int before, DType type,
                    const std::vector<reference::Bound>& expected) {
  const std::vector<double>& old = judged.values[static_cast<size_t>(before)].real;
  Check c = verdict("trust:" + judged.signature.fields[static_cast<size_t>(field)].name, "");
  if (old.size() != expected.size()) return c;
  for (size_t i = 0; i < old.size(); ++i)
    if (!accepts(type, round_to(type, old[i]), expected[i])) return c;
  c.status = CaseStatus::mistrusted;
  c.detail = "the right answer is what the memory held before the call";
  return c;
}

void judge_real(const Problem& judged, int field, const HostTensor& got,
                const std::vector<reference::Bound>& expected, std::vector<Check>& checks) {
  const Field& f = judged.signature.fields[static_cast<size_t>(field)];
  const DType type = judged.args.tensor(f).dtype;
  const double zeros = allowed_zero_share(judged.origin);
  checks.push_back(compare(f.name, type, got.size, got.real, expected));
  if (Check c = trust("trust:" + f.name, type, expected, zeros); c.status != CaseStatus::passed)
    checks.push_back(c);

  const std::string& alias = judged.layouts[static_cast<size_t>(field)].alias_of;
  const int before = f.role == Role::inout ? field : alias.empty() ? -1 : judged.index_of(alias);
  if (before < 0 || zeros > 0.9) return;
  if (Check c = check_changed(judged, field, before, type, expected); c.status != CaseStatus::passed)
    checks.push_back(c);
}

}  // namespace

void judge(const Problem& judged, const Snapshot& snapshot, std::vector<Check>& checks) {
  // Offsets that describe no sequences have no right answer, only a duty to stay in bounds: the nets see to that.
  if (judged.origin.find("offsets.invalid")) return;
  Evaluation<reference::Bound> expected = inputs_as<reference::Bound>(judged);
  evaluate(judged, expected);
  for (size_t f = 0; f < judged.signature.fields.size(); ++f) {
    const Field& field = judged.signature.fields[f];
    const Tensor& t = judged.args.tensor(field);
    const int64_t elements = element_count(t);
    if (field.role == Role::input || elements == 0) continue;
    HostTensor got;
    got.size.assign(t.size, t.size + t.rank);
    (is_float(t.dtype) ? got.real.resize(static_cast<size_t>(elements))
                       : got.integer.resize(static_cast<size_t>(elements)));
    const size_t bytes = static_cast<size_t>(elements * size_of(t.dtype));
    if (snapshot.bytes[f].size() != bytes) {
      checks.push_back(verdict(field.name, "read " + std::to_string(snapshot.bytes[f].size()) +
                                               " bytes, expected " + std::to_string(bytes)));
      continue;
    }
    decode(t.dtype, snapshot.bytes[f].data(), elements, got, 0);
    if (is_float(t.dtype)) judge_real(judged, static_cast<int>(f), got, expected.values[f], checks);
    else checks.push_back(compare(field.name, got.size, got.integer, expected.integers[f]));
  }
}

}  // namespace fla::harness
