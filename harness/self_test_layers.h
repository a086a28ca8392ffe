// The layers of the self-test. Each plants its faults and enters them into the matrix.
#pragma once

#include <algorithm>
#include <string>
#include <vector>

#include "harness/kill_matrix.h"
#include "harness/planted_kernel.h"

namespace fla::harness {

// The cases that faults are planted in: every pilot operator, forward and backward, f32 and bf16.
const std::vector<std::string>& self_test_subjects();

void plant_output_faults(KillMatrix&);    // wrong numbers at the store
void plant_protocol_faults(KillMatrix&);  // wrong conduct beside the numbers
void plant_semantic_faults(KillMatrix&);
void plant_harness_faults(KillMatrix&);  // the checker's own parts
void plant_file_faults(KillMatrix&);     // what it reads and writes
void plant_gradient_faults(KillMatrix&);  // references that are not each other's derivative

// The smallest error of a single element from which on every one is caught, in ulps: those of its dtype at
// the element's size, or at the usual size in the tensor where that is larger.
struct Sensitivity {
  std::string op, tensor;
  DType dtype = DType::f32;
  double always_ulps = 0;  // caught in every element
  double usual_ulps = 0;   // caught in half of them
  double promised_ulps = 0;
};
// Measures it, and plants errors of the promised size and above.
std::vector<Sensitivity> plant_ulp_faults(KillMatrix&);
std::string sensitivity_table(const std::vector<Sensitivity>&);

// All layers.
std::vector<Sensitivity> plant_all_faults(KillMatrix&);
// Prints it all. Returns the exit code, as it would be with the net `without` switched off; empty: all nets
// hang.
int conclude(const KillMatrix&, const std::vector<Sensitivity>&, const std::string& without, bool verbose);

// An operator that computes something else than its formula.
struct SemanticFault {
  std::string name;
  std::string case_text;  // "?" is replaced by each of `dtypes`
  Fault fault;
  std::vector<std::string> dtypes = {"f32", "bf16"};
};
void add_norm_faults(std::vector<SemanticFault>&);
void add_norm_family_faults(std::vector<SemanticFault>&);
void add_activation_faults(std::vector<SemanticFault>&);
void add_fp8_faults(std::vector<SemanticFault>&);
void add_loss_faults(std::vector<SemanticFault>&);
void add_distribution_loss_faults(std::vector<SemanticFault>&);
void add_token_loss_faults(std::vector<SemanticFault>&);
void add_conv_faults(std::vector<SemanticFault>&);
void add_rotary_faults(std::vector<SemanticFault>&);
void add_token_shift_faults(std::vector<SemanticFault>&);
void add_long_conv_faults(std::vector<SemanticFault>&);
void add_linear_faults(std::vector<SemanticFault>&);
void add_feature_map_faults(std::vector<SemanticFault>&);
void add_linear_loss_faults(std::vector<SemanticFault>&);

// The answers of another call; only these outputs of it, or all.
Fault of_other_call(std::function<void(Problem&)> change, std::vector<std::string> only = {});
// The right answers, changed.
Fault with_answers(std::function<void(const Problem&, Answers&)> change);
Fault zeroed(const std::string& field);
Fault negated(const std::string& field);
Fault accumulated(Scalar);
// Row i becomes row i + 1, the last the first.
template <class T>
void rotate_rows(std::vector<T>& values, int64_t columns) {
  std::rotate(values.begin(), values.begin() + columns, values.end());
}

}  // namespace fla::harness
