#include "harness/signature.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "fla/conv.h"
#include "fla/loss.h"
#include "fla/norm.h"
#include "harness/case_keys.h"

namespace fla::harness {
namespace {

TEST(Signature, KeepsTheOrderAndTheRolesOfTheDescription) {
  RmsNormForward args;
  const Signature s = signature_of(args);
  std::string text;
  for (const Field& f : s.fields) text += f.name + ":" + name_of(f.role) + " ";
  EXPECT_EQ(text, "x:input residual:input weight:input bias:input y:output residual_out:saved rstd:saved ");
  ASSERT_EQ(s.dims.size(), 3u);
  EXPECT_EQ(s.dims[1].name, "G");
  EXPECT_TRUE(s.dims[1].has_fallback);
  EXPECT_EQ(s.dims[1].fallback.plus, 1);
  EXPECT_FALSE(s.dims[2].has_fallback);
}

TEST(Signature, RulesThatPointAtTensorsNameThem) {
  RmsNormForward forward;
  const Signature f = signature_of(forward);
  EXPECT_EQ(f.field("y")->like, "");
  EXPECT_EQ(f.field("y")->alias, "x");
  EXPECT_EQ(f.field("x")->like, "");
  RmsNormBackward backward;
  EXPECT_EQ(signature_of(backward).field("dweight")->with, "weight");
  EXPECT_EQ(signature_of(backward).field("y")->like, "dy");
  EXPECT_EQ(signature_of(backward).field("dx")->alias, "dy");
  EXPECT_EQ(signature_of(backward).field("dx")->like, "");
  EXPECT_EQ(f.field("nothing"), nullptr);
}

TEST(Signature, DependsOnAttributesAndOnPresence) {
  RmsNormForward args;
  EXPECT_EQ(signature_of(args).field("weight")->dims.size(), 1u);
  EXPECT_EQ(signature_of(args).field("residual_out")->presence, Presence::optional);
  EXPECT_EQ(signature_of(args).field("mean"), nullptr);
  args.kind = NormKind::layer;
  EXPECT_NE(signature_of(args).field("mean"), nullptr);
  args.weight_per_group = true;
  args.residual.rank = 3;
  EXPECT_EQ(signature_of(args).field("weight")->dims.size(), 2u);
  EXPECT_EQ(signature_of(args).field("residual_out")->presence, Presence::expected);
}

TEST(Signature, DimensionsThatMayBeLeftOutAreThoseWithFallbackOne) {
  RmsNormForward args;
  const Signature s = signature_of(args);
  const Field& x = *s.field("x");
  EXPECT_FALSE(x.dims[0].omittable);
  EXPECT_TRUE(x.dims[1].omittable);
  CausalConv1dForward conv;
  const Signature c = signature_of(conv);
  EXPECT_FALSE(c.field("weight")->dims[1].omittable);  // W falls back to 4
}

TEST(Signature, AttributesPrintTheirDefaultsAsCasesDo) {
  CrossEntropyForward args;
  const Signature s = signature_of(args);
  std::string text;
  for (const Attribute& a : s.attributes) text += a.name + "=" + a.fallback + " ";
  EXPECT_EQ(
      text,
      "ignore_index=-100 class_start=0 total_classes=0 label_smoothing=0 logit_scale=1 lse_square_scale=0 "
      "softcap=inf reduction=mean empty_mean=zero ");
  RmsNormForward norm;
  EXPECT_EQ(signature_of(norm).attributes[0].fallback, "1e-05");
  EXPECT_EQ(signature_of(norm).attributes[1].fallback, "0");
  EXPECT_EQ(signature_of(norm).attributes[2].fallback, "rms");
}

TEST(Signature, OffsetsFindTheTensorsAgain) {
  CrossEntropyForward object;
  object.labels.rank = 1;
  object.labels.size[0] = 77;
  Args args(&object, sizeof object);
  const Signature s = signature_of(object);
  EXPECT_EQ(args.tensor(*s.field("labels")).size[0], 77);
  args.tensor(*s.field("lse")).size[0] = 5;
  EXPECT_EQ(static_cast<const CrossEntropyForward*>(args.get())->lse.size[0], 5);
}

TEST(Operators, EveryDirectionIsWhole) {
  ASSERT_FALSE(all_directions().empty());
  for (const Direction& d : all_directions()) {
    EXPECT_EQ(find_direction(d.key()), &d);
    const Signature s = full_signature(d, true);
    const auto named = [&](const NamedDim& dim) { return dim.name == d.sample_dim; };
    EXPECT_EQ(std::count_if(s.dims.begin(), s.dims.end(), named), d.sample_dim.empty() ? 0 : 1)
        << d.key() << " samples " << d.sample_dim;
    EXPECT_EQ(forward_of(d) != nullptr, !d.backward_of.empty()) << d.key();
    EXPECT_EQ(d.name == "bwd", !d.backward_of.empty()) << d.key();
  }
  EXPECT_EQ(find_direction("rms_norm.sideways"), nullptr);
}

}  // namespace
}  // namespace fla::harness
