#include "harness/self_test.h"

#include <cstdio>

#include "harness/self_test_layers.h"

namespace fla::harness {

const std::vector<std::string>& self_test_subjects() {
  static const std::vector<std::string> subjects = [] {
    std::vector<std::string> all;
    for (const char* dtype : {"f32", "bf16"})
      for (const char* shape :
           {"rms_norm.fwd:M=12,N=40,x=%", "rms_norm.bwd:M=12,N=40,x=%", "swiglu.fwd:M=12,F=40,x=%",
            "swiglu.bwd:M=12,F=40,x=%", "cross_entropy.fwd:T=24,V=40,reduction=none,logits=%",
            "cross_entropy.bwd:T=12,V=40,logits=%",
            "causal_conv1d.fwd:B=2,T=12,D=24,activation=silu,x=%,bias=%",
            "causal_conv1d.bwd:B=2,T=12,D=24,activation=silu,x=%,bias=%"}) {
        std::string text = shape;
        for (size_t at; (at = text.find('%')) != std::string::npos;) text.replace(at, 1, dtype);
        all.push_back(text);
      }
    return all;
  }();
  return subjects;
}

std::vector<Sensitivity> plant_all_faults(KillMatrix& matrix) {
  plant_output_faults(matrix);
  std::vector<Sensitivity> sensitivity = plant_ulp_faults(matrix);
  plant_protocol_faults(matrix);
  plant_semantic_faults(matrix);
  plant_harness_faults(matrix);
  plant_file_faults(matrix);
  plant_gradient_faults(matrix);
  return sensitivity;
}

int conclude(const KillMatrix& matrix, const std::vector<Sensitivity>& sensitivity,
             const std::string& without, bool verbose) {
  if (verbose) std::printf("%s\n", matrix.log().c_str());
  std::printf("%s\nSmallest error of one element that is always caught, in ulps:\n%s\n%s",
              matrix.table(without).c_str(), sensitivity_table(sensitivity).c_str(),
              matrix.summary(without).c_str());
  return matrix.complete(without) ? kPassed : kSelfTestFailed;
}

int run_self_test(bool verbose) {
  KillMatrix matrix;
  const std::vector<Sensitivity> sensitivity = plant_all_faults(matrix);
  return conclude(matrix, sensitivity, "", verbose);
}

}  // namespace fla::harness
