#include "reference/linear_kl_div.h"

#include "reference/tests/gradient_proof.h"

namespace fla::reference {
namespace {

using namespace test;

const double kLn2 = std::log(2.0), kLn3 = std::log(3.0);

TEST(LinearCrossEntropy, GivesHandComputedValues) {
  // Two tokens, one ignored; logits x w + b = (0, ln 2, ln 3), softmax 1/6, 2/6, 3/6.
  LinearCrossEntropyForwardBackward a;
  Tensors<double> t;
  allocate(a, {{"T", 2}, {"H", 1}, {"V", 3}}, {"bias", "dx", "dweight", "dbias", "dloss", "token_weights"}, t);
  t["x"] = {1, 5};
  t["weight"] = {0, 1, 1};
  t["bias"] = {0, kLn2 - 1, kLn3 - 1};
  t["dloss"] = {6};
  t["token_weights"] = {2, 1};
  t.integer["labels"] = {1, -100};
  evaluate<double>(a);
  EXPECT_NEAR(t["loss"][0], 2 * kLn3, 1e-6);
  const double g = 12;  // upstream times weight, over one token
  EXPECT_NEAR(t["dbias"][0], g / 6, 1e-5);
  EXPECT_NEAR(t["dbias"][1], g * (1.0 / 3 - 1), 1e-5);
  EXPECT_NEAR(t["dweight"][2], g / 2, 1e-5);
  EXPECT_NEAR(t["dx"][0], g * (1.0 / 3 - 1 + 0.5), 1e-5);
  EXPECT_EQ(t["dx"][1], 0);
}

TEST(LinearCrossEntropy, BackwardIsTheDerivative) {
  for (const Reduction reduction : {Reduction::mean, Reduction::sum, Reduction::none}) {
    Proof<LinearCrossEntropyForward, LinearCrossEntropyBackward> p;
    p.forward.reduction = p.backward.reduction = reduction;
    p.forward.label_smoothing = p.backward.label_smoothing = 0.1f;
    p.forward.lse_square_scale = p.backward.lse_square_scale = 0.1f;
    p.forward.softcap = p.backward.softcap = 3;
    p.extents = {{"T", 5}, {"H", 4}, {"V", 17}};
    p.with = {"lse", "bias"};
    p.without = {"dlse", "dnormalizer", "dtoken_weights"};
    p.prepare = [](Tensors<double>& t) { t.integer["labels"] = {0, 16, -100, 40, 7}; };
    EXPECT_LE(p.worst(), 1e-6);  // logits and their gradients are rounded to f32 on the way
  }
}

TEST(LinearKlDiv, GivesHandComputedValues) {
  // Student uniform over two classes, teacher (3/4, 1/4).
  LinearKlDivForwardBackward a;
  Tensors<double> t;
  allocate(a, {{"T", 1}, {"H", 1}, {"G", 1}, {"V", 2}}, {"dloss", "dx", "dweight"}, t);
  t["x"] = {2};
  t["weight"] = {1, 1};
  t["target_x"] = {1};
  t["target_weight"] = {kLn3, 0};
  t["dloss"] = {4};
  evaluate<double>(a);
  EXPECT_NEAR(t["loss"][0], 0.75 * std::log(1.5) + 0.25 * std::log(0.5), 1e-6);
  EXPECT_NEAR(t["dweight"][0], 4 * 2 * (0.5 - 0.75), 1e-5);
  EXPECT_NEAR(t["dx"][0], 0, 1e-6);
}

}  // namespace
}  // namespace fla::reference
