// How quantised outputs go wrong. That what lies beyond 448 saturates no operator shows, because its own scale keeps it
// from there: kernels/tests/fp8_test.cpp does.
#include <cmath>

#include "fla/fp8.h"
#include "harness/self_test_layers.h"

namespace fla::harness {
namespace {

// Codes and scales of rows of `values`, as a quantiser with these habits makes them.
struct Quantiser {
  size_t group = 1;                     // values that share a scale
  DType stored = DType::bf16;           // what the maximum is taken of
  DType divided = DType::bf16;          // what is divided
  bool magnitudes = true;
  double largest_code = 448;
  double smallest_maximum = 1e-10;
  bool truncates = false;

  void operator()(const Problem& p, Answers& a, const std::vector<double>& values) const {
    std::vector<double>&q = real(p, a, "q"), &scale = real(p, a, "scale");
    for (size_t first = 0; first < values.size(); first += group) {
      double largest = smallest_maximum;
      for (size_t i = first; i < first + group; ++i) {
        const double v = round_to(stored, values[i]);
        largest = std::fmax(largest, magnitudes ? std::fabs(v) : v);
      }
      scale[first / group] = largest / largest_code;
      for (size_t i = first; i < first + group; ++i) {
        q[i] = round_to(divided, values[i]) / scale[first / group];
        if (!truncates || !std::isfinite(q[i])) continue;
        const double nearest = round_to(DType::f8e4m3, q[i]);
        if (std::fabs(nearest) > std::fabs(q[i])) q[i] = nearest - std::copysign(spacing(DType::f8e4m3, q[i]), q[i]);
      }
    }
  }
};

Fault quantised_by(Quantiser quantiser, const std::string& values) {
  return with_answers([=](const Problem& p, Answers& a) {
    quantiser(p, a, p.present(p.index_of(values)) && !real(p, a, values).empty() ? real(p, a, values) : real(p, values));
  });
}

Fault of_neighbour(int64_t distance) {
  return with_answers([distance](const Problem& p, Answers& a) { rotate_rows(real(p, a, "scale"), distance); });
}

}  // namespace

void add_fp8_faults(std::vector<SemanticFault>& all) {
  const std::string rows = "quantize_fp8.fwd:M=12,N=256,x=bf16", blocks = rows + ",scaling=block";
  const std::string norm = "rms_norm_fp8.fwd:M=24,N=256,x=bf16,y=bf16", unit = "swiglu_fp8.fwd:M=24,F=256,x=bf16,z=bf16";
  const std::vector<std::string> once = {"bf16"};
  all.push_back({"largest value, not magnitude", rows, quantised_by({.group = 256, .magnitudes = false}, "x"), once});
  all.push_back({"scale for codes up to 240", rows, quantised_by({.group = 256, .largest_code = 240}, "x"), once});
  all.push_back({"codes truncated", rows, quantised_by({.group = 256, .truncates = true}, "x"), once});
  all.push_back({"scale of the row, not of the block", blocks, with_answers([](const Problem& p, Answers& a) {
                   Answers of_row = a;
                   real(p, of_row, "scale").resize(12);
                   Quantiser{.group = 256}(p, of_row, real(p, "x"));
                   real(p, a, "q") = real(p, of_row, "q");
                   for (size_t b = 0; b < 24; ++b) real(p, a, "scale")[b] = real(p, of_row, "scale")[b / 2];
                 }), once});
  all.push_back({"scale of the next block", blocks, of_neighbour(1), once});
  all.push_back({"scale of the next row", rows, of_neighbour(1), once});
  all.push_back({"no smallest maximum", rows + ",fill=constant",
                 quantised_by({.group = 256, .smallest_maximum = 0}, "x"), once});
  for (const auto& [op, values] : {std::pair{norm, "y"}, {unit, "z"}}) {
    all.push_back({"scale of the unrounded values", op, quantised_by({.group = 256, .stored = DType::f32}, values), once});
    all.push_back({"codes of the unrounded values", op, quantised_by({.group = 256, .divided = DType::f32}, values), once});
  }
  all.push_back({"residual ignored in the codes", norm + ",residual=bf16",
                 of_other_call([](Problem& p) {
                   for (double& v : real(p, "residual")) v = 0;
                 }, {"q", "scale"}), once});
  all.push_back({"gate of another row in the codes", "rms_norm_gated_fp8.fwd:M=24,N=256,x=bf16,y=bf16",
                 of_other_call([](Problem& p) { rotate_rows(real(p, "gate"), 256); }, {"q", "scale"}), once});
}

}  // namespace fla::harness
