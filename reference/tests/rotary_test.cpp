#include "reference/rotary.h"

#include "reference/tests/enclosure.h"
#include "reference/tests/gradient_proof.h"

namespace fla::reference {
namespace {

using namespace test;
using RotaryProof = Proof<RotaryForward, RotaryBackward>;
using QkProof = Proof<RotaryQkForward, RotaryQkBackward>;

constexpr double kCos = 0.6, kSin = 0.8;

// One token at position 1 of a table that turns its row 1 by (0.6, 0.8) in pair 0 and by a right angle in
// pair 1.
Tensors<double> one_token(RotaryForward& a, int64_t D) {
  Tensors<double> t;
  allocate(a, {{"B", 1}, {"T", 1}, {"H", 1}, {"D", D}, {"R", 2}, {"TR", 2}}, {}, t);
  t["cos"] = {1, 1, kCos, 0};
  t["sin"] = {0, 0, kSin, 1};
  return t;
}

TEST(Rotary, PairsAreHalvesOrNeighbours) {
  RotaryForward a;
  a.options.seqlen_offset = 1;
  Tensors<double> t = one_token(a, 5);
  t["x"] = {1, 2, 10, 20, 7};
  evaluate<double>(a);
  EXPECT_EQ(t["y"], (std::vector<double>{1 * kCos - kSin * 10, -20, kSin * 1 + 10 * kCos, 2, 7}));
  a.options.interleaved = true;
  evaluate<double>(a);
  EXPECT_EQ(t["y"], (std::vector<double>{1 * kCos - kSin * 2, kSin * 1 + 2 * kCos, -20, 10, 7}));
  a.options.rotary_offset = 1;
  a.options.conjugate = true;
  evaluate<double>(a);
  EXPECT_EQ(t["y"], (std::vector<double>{1, 2 * kCos + kSin * 10, -kSin * 2 + 10 * kCos, 7, -20}));
}

TEST(Rotary, OutsideRowsAreZeroedOrKept) {
  RotaryForward a;
  Tensors<double> t = one_token(a, 5);
  t["x"] = {1, 2, 10, 20, 7};
  const std::vector<double> zeroed{0, 0, 0, 0, 7};
  for (const int64_t offset : {-1, 2}) {
    for (const bool inplace : {false, true}) {
      a.options.seqlen_offset = offset;
      a.options.inplace = inplace;
      a.options.oob_rows = OutsideRows::automatic;
      evaluate<double>(a);
      EXPECT_EQ(t["y"], inplace ? t["x"] : zeroed);
      a.options.oob_rows = OutsideRows::keep;
      evaluate<double>(a);
      EXPECT_EQ(t["y"], t["x"]);
      a.options.oob_rows = OutsideRows::zero;
      evaluate<double>(a);
      EXPECT_EQ(t["y"], zeroed);
    }
  }
}

// The turn of each token, by a table whose row p turns by a different angle; NaN: zeroed.
std::vector<int64_t> rows_taken(RotaryForward& a, Tensors<double>& t) {
  const int64_t tokens = a.x.size[0] * a.x.size[1];
  std::fill(t["x"].begin(), t["x"].end(), 1.0);
  std::fill(t["sin"].begin(), t["sin"].end(), 0.0);
  for (size_t p = 0; p < t["cos"].size(); ++p)
    t["cos"][p] = 1 + static_cast<double>(p);
  evaluate<double>(a);
  std::vector<int64_t> rows;
  for (int64_t i = 0; i < tokens; ++i)
    rows.push_back(static_cast<int64_t>(t["y"][static_cast<size_t>(2 * i)]) - 1);
  return rows;
}

TEST(Rotary, PositionsComeFromSequencesOffsetsOrIds) {
  RotaryForward a;
  Tensors<double> t;
  allocate(a, {{"B", 1}, {"T", 7}, {"H", 1}, {"D", 2}, {"R", 1}, {"TR", 9}, {"N", 3}},
           {"cu_seqlens", "seqlen_offsets", "outside_rows"}, t);
  t.integer["cu_seqlens"] = {1, 4, 4, 6};
  t.integer["seqlen_offsets"] = {7, 0, -1};
  t.integer["outside_rows"] = {100};
  EXPECT_EQ(rows_taken(a, t), (std::vector<int64_t>{-1, 7, 8, -1, -1, 0, -1}));
  EXPECT_EQ(t.integer["outside_rows"][0], 104);

  RotaryForward b;
  allocate(b, {{"B", 2}, {"T", 2}, {"H", 1}, {"D", 2}, {"R", 1}, {"TR", 9}}, {"seqlen_offsets"}, t);
  t.integer["seqlen_offsets"] = {3, std::numeric_limits<int64_t>::max()};
  EXPECT_EQ(rows_taken(b, t), (std::vector<int64_t>{3, 4, -1, -1}));

  RotaryForward c;
  allocate(c, {{"B", 2}, {"T", 2}, {"H", 1}, {"D", 2}, {"R", 1}, {"TR", 9}}, {"position_ids"}, t);
  t.integer["position_ids"] = {8, 0, 9, std::numeric_limits<int64_t>::min()};
  EXPECT_EQ(rows_taken(c, t), (std::vector<int64_t>{8, 0, -1, -1}));
}

// Qwen2-VL's sections and Qwen3-VL's interleaving of them, of 5 + 3 + 2 pairs.
TEST(Rotary, SectionsTakeTheirAxis) {
  for (const bool interleaved : {false, true}) {
    RotaryForward a;
    a.options.mrope_t = 5;
    a.options.mrope_h = 3;
    a.options.mrope_w = 2;
    a.options.mrope_interleaved = interleaved;
    Tensors<double> t;
    allocate(a, {{"B", 1}, {"T", 1}, {"H", 1}, {"D", 20}, {"R", 10}, {"TR", 3}}, {"position_ids"}, t);
    t.integer["position_ids"] = {0, 1, 2};
    std::fill(t["x"].begin(), t["x"].end(), 1.0);
    std::fill(t["sin"].begin(), t["sin"].end(), 0.0);
    for (size_t i = 0; i < 30; ++i)
      t["cos"][i] = static_cast<double>(i / 10);
    evaluate<double>(a);
    const std::vector<double> axes(t["y"].begin(), t["y"].begin() + 10);
    const std::vector<double> chunks{0, 0, 0, 0, 0, 1, 1, 1, 2, 2}, woven{0, 1, 2, 0, 1, 2, 0, 1, 0, 0};
    EXPECT_EQ(axes, interleaved ? woven : chunks);
    t.integer["position_ids"] = {0, 1, 3};  // outside along one axis: outside
    evaluate<double>(a);
    EXPECT_EQ(t["y"], std::vector<double>(20, 0.0));
  }
}

TEST(Rotary, GatheredTablesBelongToTokens) {
  RotaryForward a;
  a.options.gathered = true;
  Tensors<double> t;
  allocate(a, {{"B", 2}, {"T", 2}, {"H", 1}, {"D", 2}, {"R", 1}}, {}, t);
  EXPECT_EQ(rows_taken(a, t), (std::vector<int64_t>{0, 1, 2, 3}));
}

TEST(Rotary, BackwardIsTheDerivative) {
  for (const bool interleaved : {false, true}) {
    for (const bool inplace : {false, true}) {
      for (const OutsideRows rows : {OutsideRows::automatic, OutsideRows::zero, OutsideRows::keep}) {
        RotaryProof p;
        p.extents = {{"B", 2}, {"T", 5}, {"H", 2}, {"D", 12}, {"R", 4}, {"TR", 7}};
        p.forward.options.interleaved = interleaved;
        p.forward.options.inplace = inplace;
        p.forward.options.conjugate = interleaved != inplace;
        p.forward.options.oob_rows = rows;
        p.forward.options.rotary_offset = 2;
        p.forward.options.seqlen_offset = -2;
        p.backward.options = p.forward.options;
        EXPECT_LE(p.worst(), kAgreement);
      }
    }
  }
}

TEST(Rotary, BackwardIsTheDerivativeForPackedSequencesOfTwoTables) {
  QkProof p;
  p.extents = {{"B", 1}, {"T", 9}, {"H", 3}, {"Hk", 2}, {"D", 8}, {"R", 3}, {"TR", 6}, {"N", 4}};
  p.with = {"cu_seqlens", "seqlen_offsets", "cos_k", "sin_k"};
  p.prepare = [](Tensors<double>& t) {
    t.integer["cu_seqlens"] = {0, 4, 4, 5, 8};
    t.integer["seqlen_offsets"] = {1, 0, -1, 4};
  };
  EXPECT_LE(p.worst(), kAgreement);
}

TEST(Rotary, QAndKAreRotatedAsOneTensorIs) {
  const Extents shape{{"B", 2}, {"T", 3}, {"H", 2}, {"Hk", 1}, {"D", 6}, {"R", 2}, {"TR", 3}};
  RotaryQkForward both;
  Tensors<double> t, alone;
  allocate(both, shape, {"cos_k", "sin_k"}, t);
  copy_inputs(normal_inputs(both, shape, {"cos_k", "sin_k"}), t);
  evaluate<double>(both);
  RotaryForward one;
  for (const bool is_k : {false, true}) {
    allocate(one, {{"B", 2}, {"T", 3}, {"H", is_k ? 1 : 2}, {"D", 6}, {"R", 2}, {"TR", 3}}, {}, alone);
    alone["x"] = t[is_k ? "k" : "q"];
    alone["cos"] = t[is_k ? "cos_k" : "cos"];
    alone["sin"] = t[is_k ? "sin_k" : "sin"];
    one.x.data = alone["x"].data();
    one.cos.data = alone["cos"].data();
    one.sin.data = alone["sin"].data();
    evaluate<double>(one);
    EXPECT_EQ(alone["y"], t[is_k ? "k_out" : "q_out"]);
  }
}

TEST(Rotary, GoodKernelsStayInsideTheBound) {
  const Extents shape{{"B", 2}, {"T", 50}, {"H", 3}, {"D", 32}, {"R", 16}, {"TR", 50}};
  const double used =
      share_used<Single>(RotaryForward{}, shape, {}, normal_inputs(RotaryForward{}, shape, {}));
  EXPECT_LE(used, 1);
  EXPECT_GE(used, 0.1) << "the bound is loose";
}

}  // namespace
}  // namespace fla::reference
