// How long convolutions go wrong.
#include <cmath>

#include "fla/long_conv.h"
#include "harness/self_test_layers.h"

namespace fla::harness {
namespace {

// The answers of a call, forward or backward, with other arguments.
template <class F>
Fault with(F change, std::vector<std::string> only = {}) {
  return of_other_call([=](Problem& p) {
    if (p.index_of("dy") >= 0) change(arguments<LongConvBackward>(p));
    else change(arguments<LongConvForward>(p));
  }, std::move(only));
}

// Every row of a tensor whose last dimension is `taps`.
void reverse_rows(std::vector<double>& values, int64_t taps) {
  for (auto first = values.begin(); first != values.end(); first += taps) std::reverse(first, first + taps);
}

// A shorter signal than the transform's: what wraps around reaches the front.
void wrap_around(const Problem& p, Answers& a) {
  const LongConvForward& args = arguments<LongConvForward>(p);
  const int64_t L = args.u.size[2], rows = args.u.size[0] * args.u.size[1], K = args.k.size[1], D = args.u.size[1];
  const std::vector<double>&u = real(p, "u"), &k = real(p, "k");
  for (int64_t row = 0; row < rows; ++row)
    for (int64_t t = 0; t < L; ++t)
      for (int64_t m = t + 1; m < std::min(K, L); ++m)
        real(p, a, "y")[static_cast<size_t>(row * L + t)] +=
            k[static_cast<size_t>(row % D * K + m)] * u[static_cast<size_t>(row * L + t - m + L)];
}

void no_tap_0_of_k_rev(Problem& p) {
  std::vector<double>& taps = real(p, "k_rev");
  for (size_t i = 0; i < taps.size(); i += 9) taps[i] = 0;
}
void reverse_k(Problem& p) { reverse_rows(real(p, "k"), 37); }
void rotate_k(Problem& p) { rotate_rows(real(p, "k"), 37); }

void add_common(std::vector<SemanticFault>& all, const std::string& direction, const std::string& result) {
  const std::string plain = "long_conv." + direction + ":B=2,L=37,D=6,u=?,layout=bdl";
  const std::string gelu = plain + ",gelu=1,dropout_mask=f32,skip=f32,k_rev=f32,R=9";
  const std::string longer = plain + ",K=64,wrap=circular2L";
  all.push_back({"gelu forgotten", gelu, with([](auto& a) { a.gelu = false; }, {result})});
  all.push_back({"skip of 1 for a learned one", gelu, with([](auto& a) { a.skip = {}; }, {result})});
  all.push_back({"mask forgotten", gelu, with([](auto& a) { a.dropout_mask = {}; }, {result})});
  all.push_back({"anti-causal taps forgotten", gelu, with([](auto& a) { a.k_rev = {}; }, {result})});
  all.push_back({"tap 0 of k_rev forgotten", gelu, of_other_call(no_tap_0_of_k_rev, {result})});
  all.push_back({"taps reversed", plain, of_other_call(reverse_k, {result})});
  all.push_back({"filter of another channel", plain, of_other_call(rotate_k, {result})});
  all.push_back({"causal where circular2L is asked for", longer,
                 with([](auto& a) { a.wrap = LongConvWrap::causal; }, {result})});
  all.push_back({"future seen through a filter longer than L", plain + ",K=64",
                 with([](auto& a) { a.wrap = LongConvWrap::circular2L; }, {result})});
  all.push_back({"accumulator in bf16", plain, accumulated(Scalar::single_bf16_sum)});
}

// k of the network without its relu: a product of matrices.
void drop_relu(const Problem& p, Answers& a) {
  const ImplicitFilterForward& args = arguments<ImplicitFilterForward>(p);
  const int64_t L = args.k.size[1], D = args.k.size[0], H = args.hidden_weight.size[0], E = args.z.size[1];
  const auto at = [&](const char* name, int64_t i) { return real(p, name)[static_cast<size_t>(i)]; };
  for (int64_t l = 0; l < L; ++l)
    for (int64_t d = 0; d < D; ++d) {
      double k = at("output_bias", d);
      for (int64_t j = 0; j < H; ++j) {
        double h = at("hidden_bias", j);
        for (int64_t e = 0; e < E; ++e) h += at("z", l * E + e) * at("hidden_weight", j * E + e);
        k += h * at("output_weight", d * H + j);
      }
      real(p, a, "k")[static_cast<size_t>(d * L + l)] = k;
    }
}

void add_filters(std::vector<SemanticFault>& all) {
  const std::vector<std::string> f32{"f32"};
  for (const char* direction : {"fwd", "bwd"}) {
    const std::string text = std::string("implicit_filter.") + direction + ":L=40,P=50,D=12";
    all.push_back({"position of another tap", text, of_other_call([](Problem& p) { rotate_rows(real(p, "z"), 3); }), f32});
    all.push_back({"hidden bias forgotten", text, of_other_call([](Problem& p) {
                     for (double& b : real(p, "hidden_bias")) b = 0;
                   }), f32});
  }
  const std::string forward = "implicit_filter.fwd:L=40,P=50,D=12", backward = "implicit_filter.bwd:L=40,P=50,D=12";
  all.push_back({"relu forgotten", forward, with_answers(drop_relu), f32});
  all.push_back({"output bias forgotten", forward, of_other_call([](Problem& p) {
                   for (double& b : real(p, "output_bias")) b = 0;
                 }), f32});
  for (const char* gradient : {"dhidden_weight", "dhidden_bias", "doutput_weight", "doutput_bias"}) {
    all.push_back({std::string(gradient) + " all zeros", backward, zeroed(gradient), f32});
    all.push_back({std::string(gradient) + " of other sign", backward, negated(gradient), f32});
  }

  const std::string table = "long_conv_pos_table.fwd:P=100,E=5";
  const auto each_row = [](void (*change)(double* row)) {
    return with_answers([=](const Problem& p, Answers& a) {
      for (size_t i = 0; i < real(p, a, "z").size(); i += 5) change(&real(p, a, "z")[i]);
    });
  };
  all.push_back({"ramp to (P - 1) / P", table, each_row([](double* row) { row[0] *= 0.99; }), f32});
  all.push_back({"sine of other sign", table, each_row([](double* row) { row[3] = -row[3]; row[4] = -row[4]; }), f32});
  all.push_back({"bands exchanged", table, each_row([](double* row) { std::swap(row[1], row[2]); }), f32});
}

}  // namespace

void add_long_conv_faults(std::vector<SemanticFault>& all) {
  add_common(all, "fwd", "y");
  add_common(all, "bwd", "du");
  all.push_back({"transform of L points, not 2 L", "long_conv.fwd:B=2,L=37,D=6,u=?,layout=bdl", with_answers(wrap_around)});
  all.push_back({"rows of V with filters of other heads", "long_conv.fwd:B=2,L=20,D=4,V=3,u=?,layout=bhvl",
                 of_other_call([](Problem& p) { rotate_rows(real(p, "k"), 20); })});

  const std::string gelu = "long_conv.bwd:B=2,L=37,D=6,u=?,layout=bdl,gelu=1,dropout_mask=f32,skip=f32,k_rev=f32";
  for (const char* gradient : {"du", "dk", "dk_rev", "dskip"}) {
    all.push_back({std::string(gradient) + " all zeros", gelu, zeroed(gradient)});
    all.push_back({std::string(gradient) + " of other sign", gelu, negated(gradient)});
  }
  all.push_back({"slope of GELU forgotten", gelu, with([](auto& a) { a.gelu = false; }, {"dk"})});
  all.push_back({"mask missing in dk", gelu, with([](auto& a) { a.dropout_mask = {}; }, {"dk"})});
  all.push_back({"dk of the first row alone", gelu, of_other_call([](Problem& p) {
                   std::fill(real(p, "dy").begin() + 37 * 6, real(p, "dy").end(), 0.0);
                 }, {"dk"})});
  all.push_back({"convolution for correlation in dk", gelu,
                 of_other_call([](Problem& p) { reverse_rows(real(p, "u"), 37); }, {"dk"})});
  all.push_back({"lags of dk and dk_rev exchanged", gelu,
                 with_answers([](const Problem& p, Answers& a) { std::swap(real(p, a, "dk"), real(p, a, "dk_rev")); })});
  add_filters(all);
}

}  // namespace fla::harness
