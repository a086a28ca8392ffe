// How RMS norm goes wrong.
#include <cmath>

#include "fla/norm.h"
#include "harness/self_test_layers.h"

namespace fla::harness {
namespace {

struct Rows {
  size_t M, N;
};
Rows rows_of(const Problem& p) {
  const Tensor& t = arguments<RmsNormForward>(p).y;
  return {static_cast<size_t>(t.size[0]), static_cast<size_t>(count(t) / t.size[0])};
}

// mean + eps over N - 1: rstd and with it y are smaller by sqrt((N - 1) / N), at an eps that much smaller.
Fault mean_over_one_less() {
  Fault fault;
  fault.call = [](Problem& p) {
    const auto N = static_cast<double>(rows_of(p).N);
    arguments<RmsNormForward>(p).eps *= static_cast<float>((N - 1) / N);
  };
  fault.answers = [](const Problem& p, Answers& a) {
    const auto N = static_cast<double>(rows_of(p).N);
    for (const char* field : {"y", "rstd"})
      for (double& v : real(p, a, field)) v *= std::sqrt((N - 1) / N);
  };
  return fault;
}

void take_eps_out_of_the_root(const Problem& p, Answers& a) {
  const double eps = static_cast<double>(arguments<RmsNormForward>(p).eps);
  std::vector<double>&y = real(p, a, "y"), &rstd = real(p, a, "rstd");
  const size_t N = rows_of(p).N;
  for (size_t m = 0; m < rstd.size(); ++m) {
    const double before = rstd[m], mean = 1 / (before * before) - eps;
    rstd[m] = 1 / (std::sqrt(mean) + eps);
    for (size_t i = m * N; i < (m + 1) * N; ++i) y[i] *= rstd[m] / before;
  }
}

// rstd of the sum as stored, y of the sum as it was.
void use_statistics_of_rounded_sum(const Problem& p, Answers& a) {
  const std::vector<double>&x = real(p, "x"), &residual = real(p, "residual");
  const double eps = static_cast<double>(arguments<RmsNormForward>(p).eps);
  const auto [M, N] = rows_of(p);
  for (size_t m = 0; m < M; ++m) {
    double exact = 0, rounded = 0;
    for (size_t i = m * N; i < (m + 1) * N; ++i) {
      const double u = x[i] + residual[i], stored = round_to(DType::bf16, u);
      exact += u * u;
      rounded += stored * stored;
    }
    const auto n = static_cast<double>(N);
    const double ratio = std::sqrt((exact / n + eps) / (rounded / n + eps));
    for (size_t i = m * N; i < (m + 1) * N; ++i) real(p, a, "y")[i] *= ratio;
  }
}

void drop_projection(const Problem& p, Answers& a) {
  const std::vector<double>&dy = real(p, "dy"), &weight = real(p, "weight"), &rstd = real(p, "rstd");
  std::vector<double>& dx = real(p, a, "dx");
  const size_t N = weight.size();
  for (size_t i = 0; i < dx.size(); ++i) dx[i] = rstd[i / N] * dy[i] * weight[i % N];
}

int64_t columns_of(const Problem& p) {
  return arguments<RmsNormBackward>(p).dy.size[2];
}

void add_forward(std::vector<SemanticFault>& all) {
  const std::string plain = "rms_norm.fwd:M=12,N=96,x=?", fused = plain + ",residual=?";
  using Args = RmsNormForward;
  all.push_back(
      {"eps dropped", plain + ",fill=tiny", of_other_call([](Problem& p) { arguments<Args>(p).eps = 0; })});
  // Trap 21.
  all.push_back({"eps outside the root", plain + ",fill=tiny", with_answers(take_eps_out_of_the_root)});
  all.push_back({"mean over N - 1", plain, mean_over_one_less()});
  all.push_back({"weight ignored", plain, of_other_call([](Problem& p) { arguments<Args>(p).weight = {}; })});
  all.push_back({"weight ignored without bias", plain, of_other_call([](Problem& p) {
                   if (!arguments<Args>(p).bias) arguments<Args>(p).weight = {};
                 })});
  all.push_back(
      {"bias ignored", plain + ",bias=?", of_other_call([](Problem& p) { arguments<Args>(p).bias = {}; })});
  all.push_back({"bias ignored without weight", plain + ",bias=?,weight=none", of_other_call([](Problem& p) {
                   if (!arguments<Args>(p).weight) arguments<Args>(p).bias = {};
                 })});
  all.push_back({"weight of another column", plain,
                 of_other_call([](Problem& p) { rotate_rows(real(p, "weight"), 1); })});
  all.push_back({"residual ignored", fused,
                 of_other_call(
                     [](Problem& p) {
                       for (double& v : real(p, "residual")) v = 0;
                     },
                     {"y", "rstd"})});
  all.push_back(
      {"statistics of another row", plain,
       of_other_call([](Problem& p) { rotate_rows(real(p, "x"), static_cast<int64_t>(rows_of(p).N)); },
                     {"rstd"})});
  all.push_back({"statistics of the rounded sum",
                 "rms_norm.fwd:M=24,N=256,x=bf16,residual=bf16,rstd=none",
                 with_answers(use_statistics_of_rounded_sum),
                 {"bf16"}});
  all.push_back({"output of the rounded sum",
                 "rms_norm.fwd:M=24,N=256,x=bf16,residual=bf16,rstd=none",
                 of_other_call(
                     [](Problem& p) {
                       for (size_t i = 0; i < real(p, "x").size(); ++i) {
                         double& u = real(p, "x")[i];
                         u = round_to(DType::bf16, u + real(p, "residual")[i]);
                         real(p, "residual")[i] = 0;
                       }
                     },
                     {"y"}),
                 {"bf16"}});
  all.push_back({"one weight for all groups", "rms_norm.fwd:M=4,G=3,N=48,x=?,weight_per_group=1",
                 of_other_call([](Problem& p) {
                   std::vector<double>& w = real(p, "weight");
                   for (size_t i = 48; i < w.size(); ++i) w[i] = w[i - 48];
                 })});
  all.push_back({"accumulator in bf16", plain, accumulated(Scalar::single_bf16_sum)});
  all.push_back({"serial accumulator",
                 "rms_norm.fwd:M=6,N=16384,x=f32,fill=constant",
                 accumulated(Scalar::single_serial),
                 {"f32"}});
}

void add_backward(std::vector<SemanticFault>& all) {
  const std::string plain = "rms_norm.bwd:M=12,N=96,x=?";
  using Args = RmsNormBackward;
  all.push_back({"no projection term in dx", plain, with_answers(drop_projection)});
  all.push_back({"weight ignored in dx", plain,
                 of_other_call([](Problem& p) { arguments<Args>(p).weight = {}; }, {"dx"})});
  all.push_back({"residual gradient forgotten",
                 plain + ",residual=?,residual_out=?,dresidual_out=?,dresidual=?",
                 of_other_call([](Problem& p) { arguments<Args>(p).dresidual_out = {}; })});
  all.push_back({"dresidual without the gradient of residual_out",
                 plain + ",residual=?,residual_out=?,dresidual_out=?,dresidual=?",
                 of_other_call([](Problem& p) { arguments<Args>(p).dresidual_out = {}; }, {"dresidual"})});
  // Trap 16.
  all.push_back({"dresidual rounded to the dtype of x",
                 "rms_norm.bwd:M=12,N=96,x=bf16,residual=f32,dresidual=f32",
                 with_answers([](const Problem& p, Answers& a) {
                   for (double& v : real(p, a, "dresidual")) v = round_to(DType::bf16, v);
                 }),
                 {"bf16"}});
  all.push_back({"dweight from another row's dy", plain,
                 of_other_call([](Problem& p) { rotate_rows(real(p, "dy"), columns_of(p)); }, {"dweight"})});
  all.push_back(
      {"dweight without the last row", plain,
       of_other_call(
           [](Problem& p) { std::fill(real(p, "dy").end() - columns_of(p), real(p, "dy").end(), 0.0); },
           {"dweight"})});
  all.push_back({"dweight of x, not of x rstd", plain,
                 of_other_call(
                     [](Problem& p) {
                       for (double& v : real(p, "rstd")) v = 1;
                     },
                     {"dweight"})});
  all.push_back({"main gradients overwritten", plain + ",bias=f32,dbias=f32,accumulate=1",
                 of_other_call([](Problem& p) { arguments<Args>(p).accumulate = false; }, {"dweight", "dbias"})});
  all.push_back({"dx all zeros", plain, zeroed("dx")});
  all.push_back({"dx of other sign", plain, negated("dx")});
  all.push_back({"dweight all zeros", plain, zeroed("dweight")});
  all.push_back({"dweight of other sign", plain, negated("dweight")});
  all.push_back({"accumulator in bf16", "rms_norm.bwd:M=96,N=96,x=?", accumulated(Scalar::single_bf16_sum)});
  // Trap 15. Roundings of equal terms do not cancel, as those of random ones nearly do.
  const std::string equal_terms =
      "rms_norm.bwd:M=65536,N=1,x=f32,bias=f32,dbias=f32,dy.broadcast=1,fill=positive";
  for (const char* gradient : {"dweight", "dbias"}) {
    all.push_back({std::string("serial accumulator of ") + gradient,
                   equal_terms,
                   accumulated(Scalar::single_serial),
                   {"f32"}});
    all.back().fault.only = {gradient};
  }
}

}  // namespace

void add_norm_faults(std::vector<SemanticFault>& all) {
  add_forward(all);
  add_backward(all);
}

}  // namespace fla::harness
