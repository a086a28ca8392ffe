// How rotations go wrong.
#include "fla/rotary.h"
#include "harness/self_test_layers.h"

namespace fla::harness {
namespace {

using Forward = RotaryForward;
using Backward = RotaryBackward;
using Qk = RotaryQkForward;

template <class A>
Fault with_options(void (*change)(RotaryOptions&)) {
  return of_other_call([change](Problem& p) { change(arguments<A>(p).options); });
}

// Channel pairs at the distance D / 2 instead of R: right only where all channels are rotated.
void swap_partners(const Problem& p, Answers& a) {
  const Tensor& y = arguments<Forward>(p).y;
  std::vector<double>& values = real(p, a, "y");
  const auto D = static_cast<size_t>(y.size[y.rank - 1]);
  for (size_t row = 0; row + D <= values.size(); row += D)
    std::swap(values[row + 8], values[row + D / 2]);
}

void add_forward(std::vector<SemanticFault>& all) {
  const std::string plain = "rotary.fwd:B=2,T=9,H=3,D=32,R=8,x=?,TR=12";
  const std::string moved = plain + ",seqlen_offset=-3";
  const std::string packed = "rotary.fwd:T=40,H=2,D=16,x=?,cu_seqlens=i32,lens=0+5+3+31+1";
  const std::string axes =
      "rotary.fwd:B=2,T=9,H=2,D=32,x=?,TR=60,position_ids=i64,mrope_t=6,mrope_h=5,mrope_w=5";
  all.push_back({"neighbours paired instead of halves", plain,
                 with_options<Forward>([](RotaryOptions& o) { o.interleaved = true; })});
  all.push_back({"halves paired instead of neighbours", plain + ",interleaved=1",
                 with_options<Forward>([](RotaryOptions& o) { o.interleaved = false; })});
  all.push_back({"partner at D / 2", plain, with_answers(swap_partners)});
  all.push_back(
      {"turned the other way", plain, with_options<Forward>([](RotaryOptions& o) { o.conjugate = true; })});
  all.push_back({"first channels rotated instead of a slice", plain + ",rotary_offset=16",
                 with_options<Forward>([](RotaryOptions& o) { o.rotary_offset = 0; })});
  all.push_back({"positions one too high", plain,
                 with_options<Forward>([](RotaryOptions& o) { o.seqlen_offset = 1; })});
  all.push_back({"offset forgotten", plain + ",seqlen_offset=3",
                 with_options<Forward>([](RotaryOptions& o) { o.seqlen_offset = 0; })});
  all.push_back({"rows before the table kept", moved,
                 with_options<Forward>([](RotaryOptions& o) { o.oob_rows = OutsideRows::keep; })});
  all.push_back({"rows before the table zeroed in place", moved + ",inplace=1,y.alias=1",
                 with_options<Forward>([](RotaryOptions& o) { o.oob_rows = OutsideRows::zero; })});
  all.push_back({"sequence boundary ignored", packed,
                 with_options<Forward>([](RotaryOptions& o) { o.cu_seqlens = {}; })});
  all.push_back({"offsets of another sequence", "rotary.fwd:B=3,T=5,H=2,D=16,TR=40,x=?,seqlen_offsets=i64",
                 of_other_call([](Problem& p) { rotate_rows(integer(p, "seqlen_offsets"), 1); })});
  all.push_back({"ids of another token", "rotary.fwd:B=2,T=5,H=2,D=16,TR=40,x=?,position_ids=i32",
                 of_other_call([](Problem& p) { rotate_rows(integer(p, "position_ids"), 1); })});
  all.push_back({"axes exchanged", axes,
                 of_other_call([](Problem& p) { rotate_rows(integer(p, "position_ids"), 18); })});
  all.push_back({"sections woven instead of side by side", axes,
                 with_options<Forward>([](RotaryOptions& o) { o.mrope_interleaved = true; })});
  all.push_back({"gathered table of another token", "rotary.fwd:B=2,T=5,H=2,D=16,x=?,gathered=1",
                 of_other_call([](Problem& p) { rotate_rows(real(p, "cos"), 8); })});
  all.push_back(
      {"sine of another pair", plain, of_other_call([](Problem& p) { rotate_rows(real(p, "sin"), 1); })});
}

void add_backward(std::vector<SemanticFault>& all) {
  const std::string plain = "rotary.bwd:B=2,T=9,H=3,D=32,R=8,x=?,TR=12";
  all.push_back(
      {"turned as forward", plain, with_options<Backward>([](RotaryOptions& o) { o.conjugate = true; })});
  all.push_back({"gradient of zeroed rows kept", plain + ",seqlen_offset=-3",
                 with_options<Backward>([](RotaryOptions& o) { o.oob_rows = OutsideRows::keep; })});
  all.push_back({"dx all zeros", plain, zeroed("dx")});
  all.push_back({"dx of other sign", plain, negated("dx")});
}

void add_qk(std::vector<SemanticFault>& all) {
  const std::string plain = "rotary_qk.fwd:B=2,T=9,H=4,Hk=2,D=32,q=?,cos_k=?";
  all.push_back({"k by q's tables", plain, of_other_call([](Problem& p) {
                   arguments<Qk>(p).cos_k = {};
                   arguments<Qk>(p).sin_k = {};
                 })});
  all.push_back({"k left as it was", plain,
                 with_answers([](const Problem& p, Answers& a) { real(p, a, "k_out") = real(p, "k"); })});
}

}  // namespace

void add_rotary_faults(std::vector<SemanticFault>& all) {
  add_forward(all);
  add_backward(all);
  add_qk(all);
}

}  // namespace fla::harness
