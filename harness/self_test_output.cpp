// L0, the numbers: right answers, damaged at the store.
#include <cmath>
#include <limits>

#include "harness/compare.h"
#include "harness/judge.h"
#include "harness/self_test_layers.h"
#include "reports/text_table.h"

namespace fla::harness {
namespace {

// One output tensor as rows and columns.
struct Output {
  std::vector<double>& values;
  DType type;
  size_t columns;
  size_t rows() const { return values.size() / columns; }
};

Output main_output_of(const Problem& p, Answers& a) {
  const auto f = static_cast<size_t>(main_output(p));
  const Tensor& t = p.args.tensor(p.signature.fields[f]);
  return {a.values[f], t.dtype, static_cast<size_t>(t.size[t.rank - 1])};
}

double truncated(DType type, double value) {
  const double nearest = round_to(type, value);
  if (std::abs(nearest) <= std::abs(value)) return nearest;
  return round_to(type, nearest - std::copysign(spacing(type, value), value));
}

// A rectangle of the tensor from somewhere else in it, as after a missing barrier.
void copy_tile(Output o) {
  const size_t width = std::min<size_t>(8, o.columns),
               height = o.columns > 8 ? std::min<size_t>(4, o.rows()) : 1;
  const std::vector<double> before = o.values;
  for (size_t r = 0; r < height; ++r)
    for (size_t c = 0; c < width; ++c)
      o.values[r * o.columns + c] = before[before.size() - width * (height - r) + c];
}

struct OutputFault {
  const char* name;
  void (*damage)(Output);
};
constexpr double kInfinity = std::numeric_limits<double>::infinity();

const OutputFault kOutputFaults[] = {
    {"one NaN", [](Output o) { o.values[o.values.size() / 2] = std::numeric_limits<double>::quiet_NaN(); }},
    {"one infinity", [](Output o) { o.values[o.values.size() / 3] = kInfinity; }},
    {"one sign flipped", [](Output o) { o.values[o.values.size() / 2] *= -1; }},
    {"last element zero", [](Output o) { o.values.back() = 0; }},
    {"last row zero",
     [](Output o) { std::fill(o.values.end() - static_cast<int64_t>(o.columns), o.values.end(), 0.0); }},
    {"last column zero",
     [](Output o) {
       for (size_t r = 1; r <= o.rows(); ++r) o.values[r * o.columns - 1] = 0;
     }},
    {"row swapped with its neighbour",
     [](Output o) {
       const size_t width = o.rows() > 1 ? o.columns : 1;  // of a vector, two elements
       std::swap_ranges(o.values.begin(), o.values.begin() + static_cast<int64_t>(width),
                        o.values.begin() + static_cast<int64_t>(width));
     }},
    {"tile of stale data", copy_tile},
    {"shifted by one",
     [](Output o) { std::rotate(o.values.rbegin(), o.values.rbegin() + 1, o.values.rend()); }},
    {"all zeros", [](Output o) { std::fill(o.values.begin(), o.values.end(), 0.0); }},
    {"off by 0.4 everywhere",
     [](Output o) {
       for (double& v : o.values) v += 0.4;
     }},
};

void plant(KillMatrix& matrix, const char* name, const std::string& subject, void (*damage)(Output)) {
  Fault fault;
  fault.answers = [damage](const Problem& p, Answers& a) { damage(main_output_of(p, a)); };
  matrix.planted("L0", name, subject, {"compare"}, reported_by(check_planted(subject, fault, kNumbersOnly)));
}

// Infinite answers come from infinite or huge inputs only.
void plant_infinity_faults(KillMatrix& matrix) {
  for (const char* subject :
       {"swiglu.fwd:M=8,F=40,x=f32,fill=extremes", "swiglu.fwd:M=8,F=40,x=bf16,fill=extremes"}) {
    matrix.clean("L0", subject, reported_by(check_planted(subject, {}, kNumbersOnly)));
    Fault fault;
    bool found = false;
    fault.answers = [&](const Problem& p, Answers& a) {
      const Output o = main_output_of(p, a);
      const auto at = std::find_if(o.values.begin(), o.values.end(),
                                   [&](double v) { return std::isinf(round_to(o.type, v)); });
      if ((found = at != o.values.end())) *at = -*at;
    };
    const Result r = check_planted(subject, fault, kNumbersOnly);
    matrix.planted("L0", "sign of an infinity flipped", subject, {"compare"},
                   found ? reported_by(r) : Reported());
  }
}

// --------------------------------------------------------------------------------------------- sensitivity

// An ulp of a nearly cancelled element says nothing; that of a usual element of the tensor does.
double usual_magnitude(const std::vector<reference::Bound>& expected) {
  std::vector<double> magnitudes;
  for (const reference::Bound& y : expected)
    if (std::isfinite(y.v)) magnitudes.push_back(std::abs(y.v));
  std::nth_element(magnitudes.begin(), magnitudes.begin() + static_cast<int64_t>(magnitudes.size() / 2),
                   magnitudes.end());
  return magnitudes[magnitudes.size() / 2];
}

// The smallest power of two from which on an error of so many `ulp`s, either way, is not accepted any more.
double caught_from(DType type, const reference::Bound& y, double ulp) {
  const double stored = round_to(type, y.v);
  double from = std::ldexp(1.0, 40);
  for (double k = from; k >= 1; k /= 2) {
    if (accepts(type, round_to(type, stored + k * ulp), y) ||
        accepts(type, round_to(type, stored - k * ulp), y))
      break;
    from = k;
  }
  return from;
}

struct Measured {
  Sensitivity sensitivity;
  size_t worst = 0;  // element
  double ulp = 0;    // of that element
};

Measured measure(DType type, const std::vector<reference::Bound>& expected) {
  const double usual = usual_magnitude(expected);
  Measured m;
  std::vector<double> ulps;
  for (size_t i = 0; i < expected.size(); ++i) {
    const double ulp = spacing(type, std::max(std::abs(expected[i].v), usual));
    ulps.push_back(caught_from(type, expected[i], ulp));
    if (m.ulp > 0 && ulps.back() <= m.sensitivity.always_ulps) continue;
    m.worst = i;
    m.ulp = ulp;
    m.sensitivity.always_ulps = ulps.back();
  }
  std::sort(ulps.begin(), ulps.end());
  m.sensitivity.usual_ulps = ulps[ulps.size() / 2];
  return m;
}

// In the element that hides most, on both sides, from the promised size upwards.
void plant_ulps(KillMatrix& matrix, const std::string& case_text, size_t field, const Measured& m) {
  for (int power = 0; power <= 10; power += 2)
    for (const double side : {-1.0, 1.0}) {
      const double error = side * std::ldexp(m.sensitivity.promised_ulps * m.ulp, power);
      Fault fault;
      fault.answers = [&](const Problem& p, Answers& a) {
        const DType type = p.args.tensor(p.signature.fields[field]).dtype;
        a.values[field][m.worst] = round_to(type, a.values[field][m.worst]) + error;
      };
      matrix.planted("L0", "one element off by some ulps", case_text, {"compare"},
                     reported_by(check_planted(case_text, fault, kNumbersOnly)));
    }
}

// What releases publish: no error of a single element above this many ulps passes. In bf16 only the rounding
// at the store is left, and a value near the middle of two; where every operation is exact there is no
// tolerance; in f32 the bound is that of the operator's arithmetic, the largest of 30 seeds each.
double promised_ulps(const std::string& op, DType type, bool exact) {
  if (exact) return 1;
  if (type == DType::bf16) return 2;
  if (op == "cross_entropy") return 32;
  return op == "causal_conv1d" ? 2048 : 256;
}

std::vector<std::string> sensitivity_cases() {
  std::vector<std::string> all = self_test_subjects();
  for (const char* direction : {"fwd", "bwd"})
    for (const char* dtype : {"f32", "bf16"})
      all.push_back(std::string("causal_conv1d.") + direction + ":B=2,T=12,D=24,x=" + dtype + ",fill=exact");
  return all;
}

}  // namespace

void plant_output_faults(KillMatrix& matrix) {
  for (const std::string& subject : self_test_subjects()) {
    for (const OutputFault& f : kOutputFaults) plant(matrix, f.name, subject, f.damage);
    if (subject.find("=bf16") == std::string::npos) continue;
    // In f32 a truncated double lies within the error that the arithmetic may make anyway.
    if (subject.find("cross_entropy.fwd") == std::string::npos)
      plant(matrix, "truncated, not rounded", subject, [](Output o) {
        for (double& v : o.values) v = truncated(o.type, v);
      });
  }
  plant_infinity_faults(matrix);
}

std::vector<Sensitivity> plant_ulp_faults(KillMatrix& matrix) {
  std::vector<Sensitivity> all;
  for (const std::string& text : sensitivity_cases()) {
    const Problem p = make_problem(parse_case(text));
    const bool exact = text.find("fill=exact") != std::string::npos;
    Evaluation<reference::Bound> expected = inputs_as<reference::Bound>(p);
    evaluate(p, expected);
    for (size_t f = 0; f < p.signature.fields.size(); ++f) {
      const Field& field = p.signature.fields[f];
      const Tensor& t = p.args.tensor(field);
      if (field.role == Role::input || !t || !is_float(t.dtype)) continue;
      Measured m = measure(t.dtype, expected.values[f]);
      m.sensitivity.promised_ulps = promised_ulps(p.origin.direction->op, t.dtype, exact);
      m.sensitivity.op = p.origin.direction->key() + (exact ? ", exact numbers" : "");
      m.sensitivity.tensor = field.name;
      m.sensitivity.dtype = t.dtype;
      plant_ulps(matrix, text, f, m);
      all.push_back(m.sensitivity);
    }
  }
  return all;
}

std::string sensitivity_table(const std::vector<Sensitivity>& all) {
  reports::Table t;
  t.columns = {{"operator"}, {"tensor"}, {"dtype"}};
  for (const char* title : {"half of the elements", "every element", "promised"})
    t.columns.push_back({title, true});
  for (const Sensitivity& s : all)
    t.rows.push_back({s.op, s.tensor, name_of(s.dtype), reports::significant(s.usual_ulps),
                      reports::significant(s.always_ulps), reports::significant(s.promised_ulps)});
  return reports::aligned(t);
}

}  // namespace fla::harness
