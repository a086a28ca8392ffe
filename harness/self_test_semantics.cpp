// L1: operators that compute something else, or in a worse way. What they compute with is fp32, as a good
// kernel does, so that only the fault differs from what must pass.
#include <set>

#include "harness/self_test_layers.h"

namespace fla::harness {
namespace {

std::string with_dtype(std::string text, const std::string& dtype) {
  for (size_t at; (at = text.find('?')) != std::string::npos;) text.replace(at, 1, dtype);
  return text;
}

std::vector<SemanticFault> semantic_faults() {
  std::vector<SemanticFault> all;
  add_norm_faults(all);
  add_norm_family_faults(all);
  add_activation_faults(all);
  add_fp8_faults(all);
  add_loss_faults(all);
  add_distribution_loss_faults(all);
  add_token_loss_faults(all);
  add_conv_faults(all);
  add_rotary_faults(all);
  add_token_shift_faults(all);
  add_long_conv_faults(all);
  add_linear_faults(all);
  add_feature_map_faults(all);
  add_linear_loss_faults(all);
  return all;
}

}  // namespace

Fault zeroed(const std::string& field) {
  Fault fault;
  fault.answers = [field](const Problem& p, Answers& a) {
    std::vector<double>& values = real(p, a, field);
    std::fill(values.begin(), values.end(), 0.0);
  };
  return fault;
}

Fault negated(const std::string& field) {
  Fault fault;
  fault.answers = [field](const Problem& p, Answers& a) {
    for (double& v : real(p, a, field)) v = -v;
  };
  return fault;
}

Fault accumulated(Scalar scalar) {
  Fault fault;
  fault.scalar = scalar;
  return fault;
}

Fault of_other_call(std::function<void(Problem&)> change, std::vector<std::string> only) {
  Fault fault;
  fault.call = std::move(change);
  fault.only = std::move(only);
  return fault;
}

Fault with_answers(std::function<void(const Problem&, Answers&)> change) {
  Fault fault;
  fault.answers = std::move(change);
  return fault;
}

void plant_semantic_faults(KillMatrix& matrix) {
  Fault none;
  none.scalar = Scalar::single;
  std::set<std::string> known_clean;
  for (SemanticFault f : semantic_faults()) {
    if (f.fault.scalar == Scalar::real) f.fault.scalar = Scalar::single;
    for (const std::string& dtype : f.dtypes) {
      const std::string text = with_dtype(f.case_text, dtype);
      if (known_clean.insert(text).second)
        matrix.clean("L1", text, reported_by(check_planted(text, none, kNumbersOnly)));
      const std::string op = parse_case(text).direction->op;
      matrix.planted("L1", op + ": " + f.name, text, {"compare", "trust"},
                     reported_by(check_planted(text, f.fault, kNumbersOnly)));
    }
  }
}

}  // namespace fla::harness
