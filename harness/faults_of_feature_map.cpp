// How feature maps go wrong.
#include "fla/learned_map.h"
#include "harness/self_test_layers.h"

namespace fla::harness {
namespace {

void add_triangles(std::vector<SemanticFault>& all) {
  const std::string shape = ":M=12,N=17,x=?";
  all.push_back({"x and y exchanged", "outer_triu.fwd" + shape,
                 of_other_call([](Problem& p) { std::swap(real(p, "x"), real(p, "y")); })});
  all.push_back({"partner of another row", "outer_triu_off1.fwd" + shape,
                 of_other_call([](Problem& p) { rotate_rows(real(p, "y"), 17); })});
  all.push_back({"diagonal of x alone", "outer_triu_off1.fwd" + shape,
                 of_other_call([](Problem& p) { real(p, "y") = real(p, "x"); }, {"diagonal"})});
  all.push_back({"no diagonal in the gradients", "outer_triu_off1.bwd" + shape,
                 of_other_call([](Problem& p) { std::fill(real(p, "ddiagonal").begin(), real(p, "ddiagonal").end(), 0.0); })});
  for (const char* gradient : {"dx", "dy"}) {
    all.push_back({std::string(gradient) + " all zeros", "outer_triu.bwd" + shape, zeroed(gradient)});
    all.push_back({std::string(gradient) + " of other sign", "outer_triu.bwd" + shape, negated(gradient)});
  }
}

void add_expansions(std::vector<SemanticFault>& all) {
  const std::string shape = ":M=12,D=16,x=?";
  // fla's layout: one, the row, its squares, its pairs.
  all.push_back({"squares not halved", "fmap_taylor.fwd" + shape, with_answers([](const Problem& p, Answers& a) {
                   std::vector<double>& y = real(p, a, "y");
                   for (size_t i = 0; i < y.size(); ++i)
                     if (i % 153 >= 17 && i % 153 < 33) y[i] *= 1.4142135623730951;
                 })});
  all.push_back({"one left out", "fmap_taylor.fwd" + shape, with_answers([](const Problem& p, Answers& a) {
                   std::vector<double>& y = real(p, a, "y");
                   for (size_t i = 0; i < y.size(); i += 153) y[i] = 0;
                 })});
  all.push_back({"pairs shifted by one", "fmap_taylor.fwd" + shape,
                 with_answers([](const Problem& p, Answers& a) { rotate_rows(real(p, a, "y"), 1); })});
  all.push_back({"accumulator in bf16", "fmap_taylor.bwd" + shape, accumulated(Scalar::single_bf16_sum)});
  all.push_back({"dx of other sign", "fmap_taylor.bwd" + shape, negated("dx")});
  using Forward = RebasedMapForward;
  using Backward = RebasedMapBackward;
  const std::string forward = "fmap_rebased.fwd" + shape, backward = "fmap_rebased.bwd" + shape;
  all.push_back({"rows not normalised", forward, of_other_call([](Problem& p) { arguments<Forward>(p).normalize = false; })});
  all.push_back({"gamma ignored", forward, of_other_call([](Problem& p) { arguments<Forward>(p).gamma = {}; })});
  all.push_back({"beta ignored", forward, of_other_call([](Problem& p) { arguments<Forward>(p).beta = {}; })});
  all.push_back({"eps forgotten", forward + ",eps=0.1", of_other_call([](Problem& p) { arguments<Forward>(p).eps = 0; })});
  all.push_back({"no norm in dx", backward,
                 of_other_call([](Problem& p) { arguments<Backward>(p).normalize = false; }, {"dx"})});
  all.push_back({"gamma ignored in dx", backward,
                 of_other_call([](Problem& p) { arguments<Backward>(p).gamma = {}; }, {"dx"})});
  all.push_back({"dgamma of x, not xhat", backward,
                 of_other_call([](Problem& p) { rotate_rows(real(p, "x"), 16); }, {"dgamma"})});
  for (const char* gradient : {"dx", "dgamma", "dbeta"})
    all.push_back({std::string(gradient) + " of other sign", backward, negated(gradient)});
}

void add_dpfp(std::vector<SemanticFault>& all) {
  const std::string forward = "fmap_dpfp.fwd:M=12,D=16,x=?", backward = "fmap_dpfp.bwd:M=12,D=16,x=?";
  all.push_back({"the other variant", forward,
                 of_other_call([](Problem& p) { arguments<DpfpMapForward>(p).variant = DpfpVariant::paper; })});
  all.push_back({"the other variant in dx", backward,
                 of_other_call([](Problem& p) { arguments<DpfpMapBackward>(p).variant = DpfpVariant::paper; })});
  all.push_back({"rolls in another order", forward, with_answers([](const Problem& p, Answers& a) {
                   rotate_rows(real(p, a, "y"), 32);
                 })});
  all.push_back({"dx of another row", backward, of_other_call([](Problem& p) { rotate_rows(real(p, "x"), 16); })});
  all.push_back({"dx of other sign", backward, negated("dx")});
}

void add_learned(std::vector<SemanticFault>& all) {
  using Forward = LearnedMapForward;
  using Backward = LearnedMapBackward;
  for (const std::string op : {"fmap_hedgehog", "fmap_t2r", "fmap_hadamard", "fmap_outer_product"}) {
    const std::string forward = op + ".fwd:M=20,D=24,E=20,x=?", backward = op + ".bwd:M=20,D=24,E=20,x=?";
    all.push_back({"weight of another output", forward,
                   of_other_call([](Problem& p) { rotate_rows(real(p, "weight"), 24); })});
    all.push_back({"dweight of another row's x", backward,
                   of_other_call([](Problem& p) { rotate_rows(real(p, "x"), 24); }, {"dweight"})});
    if (op != "fmap_t2r")  // whose dh is dy
      all.push_back({"dh not rounded in front of the products", backward,
                     of_other_call([](Problem& p) { arguments<Backward>(p).x.dtype = DType::f32; }, {"dx"}), {"bf16"}});
    for (const char* gradient : {"dx", "dweight"})
      all.push_back({std::string(gradient) + " of other sign", backward, negated(gradient)});
  }
  all.push_back({"bias forgotten", "fmap_hedgehog.fwd:M=20,D=24,x=?",
                 of_other_call([](Problem& p) { arguments<Forward>(p).bias = {}; })});
  // fla's factor of the hedgehog: softmax of 2h.
  all.push_back({"h not doubled", "fmap_hedgehog.fwd:M=20,D=24,x=?", of_other_call([](Problem& p) {
                   for (const char* field : {"weight", "bias"})
                     for (double& v : real(p, field)) v /= 2;
                 })});
  all.push_back({"halves exchanged", "fmap_hedgehog.fwd:M=20,D=24,x=?",
                 with_answers([](const Problem& p, Answers& a) { rotate_rows(real(p, a, "y"), 24); })});
  all.push_back({"dbias without the last row", "fmap_hadamard.bwd:M=20,D=24,x=?", of_other_call([](Problem& p) {
                   std::fill(real(p, "dy").end() - 24, real(p, "dy").end(), 0.0);
                 }, {"dbias"})});
  all.push_back({"layers exchanged", "fmap_outer_product.fwd:M=20,D=24,E=20,x=?",
                 of_other_call([](Problem& p) { std::swap(real(p, "weight"), real(p, "weight2")); })});
  const std::string sketch = ":M=20,D=24,S=12,degree=8,x=?";
  all.push_back({"one layer too few", "fmap_polysketch.fwd" + sketch,
                 of_other_call([](Problem& p) { arguments<PolysketchMapForward>(p).degree = 4; })});
  all.push_back({"gamma ignored", "fmap_polysketch.fwd" + sketch,
                 of_other_call([](Problem& p) { arguments<PolysketchMapForward>(p).gamma = {}; })});
  all.push_back({"z not rounded in front of the product", "fmap_polysketch.fwd" + sketch,
                 of_other_call([](Problem& p) { arguments<PolysketchMapForward>(p).x.dtype = DType::f32; }), {"bf16"}});
  for (const char* gradient : {"dx", "dgamma", "da", "dlater_b"})
    all.push_back({std::string(gradient) + " of other sign", "fmap_polysketch.bwd" + sketch, negated(gradient)});
}

}  // namespace

void add_feature_map_faults(std::vector<SemanticFault>& all) {
  add_triangles(all);
  add_expansions(all);
  add_dpfp(all);
  add_learned(all);
}

}  // namespace fla::harness
