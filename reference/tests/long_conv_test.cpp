#include "reference/conv.h"
#include "reference/long_conv.h"

#include "reference/tests/enclosure.h"
#include "reference/tests/gradient_proof.h"

namespace fla::reference {
namespace {

using namespace test;

// [B, L, D] = [1, 4, 1].
LongConvForward forward(Tensors<double>& t, int64_t taps, const Names& wanted) {
  LongConvForward a;
  allocate(a, {{"B", 1}, {"L", 4}, {"D", 1}, {"K", taps}, {"R", 2}, {"V", 1}}, wanted, t);
  t["u"] = {1, 2, 3, 4};
  return a;
}

TEST(LongConv, GivesHandComputedValues) {
  Tensors<double> t;
  LongConvForward a = forward(t, 2, {"k_rev", "skip", "dropout_mask"});
  t["k"] = {10, 1};
  t["k_rev"] = {100, 1000};
  t["skip"] = {0.5};
  t["dropout_mask"] = {2};
  evaluate<double>(a);
  EXPECT_EQ(t["y"], (std::vector<double>{2 * (110 + 2000 + 0.5), 2 * (220 + 1 + 3000 + 1), 2 * (330 + 2 + 4000 + 1.5),
                                         2 * (440 + 3 + 2)}));
}

// The short convolution has its taps in the order of the tokens, and its residual is the skip.
TEST(LongConv, IsTheShortConvolutionOfReversedTaps) {
  Tensors<double> t;
  LongConvForward a = forward(t, 3, {});
  t["k"] = {10, 1, -7};
  evaluate<double>(a);
  Tensors<double> s;
  CausalConv1dForward b;
  allocate(b, {{"B", 1}, {"T", 4}, {"D", 1}, {"W", 3}}, {"residual"}, s);
  s["x"] = s["residual"] = t["u"];
  s["weight"] = {-7, 1, 10};
  evaluate<double>(b);
  EXPECT_EQ(t["y"], s["y"]);
}

// Defect 2 of the peer: its filters longer than L + 1 reach the future: tap 2 L - 1 meets the next token.
TEST(LongConv, SeesTheFutureOnlyWhereAskedTo) {
  Tensors<double> t;
  LongConvForward a = forward(t, 8, {});
  t["k"] = {0, 0, 0, 0, 0, 0, 0, 1};
  evaluate<double>(a);
  EXPECT_EQ(t["y"], (std::vector<double>{1, 2, 3, 4}));
  a.wrap = LongConvWrap::circular2L;
  evaluate<double>(a);
  EXPECT_EQ(t["y"], (std::vector<double>{3, 5, 7, 4}));
}

TEST(LongConv, BackwardGivesHandComputedValues) {
  LongConvBackward a;
  Tensors<double> t;
  allocate(a, {{"B", 1}, {"L", 2}, {"D", 1}, {"K", 3}, {"R", 2}, {"V", 1}}, {"k_rev", "du", "dk", "dk_rev"}, t);
  t["u"] = {1, 2};
  t["k"] = {10, 1, 7};
  t["k_rev"] = {100, 1000};
  t["dy"] = {3, 5};
  evaluate<double>(a);
  EXPECT_EQ(t["du"], (std::vector<double>{3 + 330 + 5, 5 + 550 + 3000}));
  EXPECT_EQ(t["dk"], (std::vector<double>{13, 5, 0}));
  EXPECT_EQ(t["dk_rev"], (std::vector<double>{13, 6}));
}

// The error allowed grows with the norms of row and filter, not with the element.
TEST(LongConv, BoundIsRelativeToNorms) {
  LongConvForward a;
  Tensors<Bound> t;
  allocate(a, {{"B", 1}, {"L", 4}, {"D", 1}, {"K", 1}, {"R", 1}, {"V", 1}}, {}, t);
  t["u"] = {Bound(0.0), Bound(0.0), Bound(3.0), Bound(4.0)};
  t["k"] = {Bound(2.0)};
  evaluate<Bound>(a);
  EXPECT_EQ(t["y"][0].v, 0);
  EXPECT_EQ(t["y"][0].e, transform_factor(4, 1) * kRounding * 10);
}

TEST(ImplicitFilter, GivesHandComputedValues) {
  ImplicitFilterForward a;
  Tensors<double> t;
  allocate(a, {{"L", 2}, {"P", 3}, {"E", 3}, {"H", 2}, {"D", 1}}, {}, t);
  t["z"] = {1, 0, 0, 0, 1, 0, 9, 9, 9};
  t["hidden_weight"] = {1, 2, 3, -4, 5, 6};
  t["hidden_bias"] = {0.5, 1};
  t["output_weight"] = {10, 100};
  t["output_bias"] = {7};
  evaluate<double>(a);
  EXPECT_EQ(t["k"], (std::vector<double>{10 * 1.5 + 7, 10 * 2.5 + 100 * 6 + 7}));
}

TEST(LongConvPosTable, StartsWithTheRampAndTurns) {
  LongConvPosTable a;
  Tensors<double> t;
  allocate(a, {{"P", 4}, {"E", 5}}, {}, t);
  evaluate<double>(a);
  EXPECT_DOUBLE_EQ(t["z"][15], 1);  // row 3: 3 / 3
  EXPECT_NEAR(t["z"][17], std::cos(1.5 * std::numbers::pi), 1e-6);   // frequency 1, three quarters of a turn
  EXPECT_NEAR(t["z"][19], -std::sin(1.5 * std::numbers::pi), 1e-6);
}

}  // namespace
}  // namespace fla::reference
