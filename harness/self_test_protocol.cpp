// L0, the conduct: kernels that write, read or depend on what is not theirs.
#include <cmath>

#include "harness/poison.h"
#include "harness/self_test_layers.h"
#include "harness/strided.h"

namespace fla::harness {
namespace {

const Field& main_field(const Problem& p) {
  return p.signature.fields[static_cast<size_t>(main_output(p))];
}

unsigned char* bytes_of(const Tensor& t) {
  return static_cast<unsigned char*>(t.data);
}
int64_t span_bytes(const Tensor& t) {
  return Strided(t).span() * size_of(t.dtype);
}
unsigned char* last_element(const Tensor& t) {
  return bytes_of(t) + span_bytes(t) - size_of(t.dtype);
}

// One more or less in the last place of an element.
void flip_lowest_bit(unsigned char* element) {
  *element ^= 1;
}

Fault with_memory(std::function<void(const Tensor& output, int run)> act) {
  Fault fault;
  fault.memory = [act = std::move(act)](const Problem& p, const Args& memory, int run) {
    if (main_output(p) >= 0) act(memory.tensor(main_field(p)), run);
  };
  return fault;
}

// What the output held before the kernel ran is lost when the answers are stored; the poison tells it.
float poison_of(int run) {
  return run % 2 ? 6.6e35f : std::nanf("");
}

struct ProtocolFault {
  const char* name;
  const char* net;
  const char* keys;  // added to the case
  Fault fault;
};

std::vector<ProtocolFault> protocol_faults() {
  std::vector<ProtocolFault> all;
  all.push_back({"byte past the end flipped", "guards", "",
                 with_memory([](const Tensor& t, int) { bytes_of(t)[span_bytes(t)] ^= 0x10; })});
  all.push_back({"byte before the start flipped", "guards", "",
                 with_memory([](const Tensor& t, int) { bytes_of(t)[-1] ^= 0x10; })});
  all.push_back({"byte far behind the end flipped", "guards", "",
                 with_memory([](const Tensor& t, int) { bytes_of(t)[span_bytes(t) + 4000] ^= 1; })});
  all.push_back({"gap between rows written", "guards", ",all.pad=3", with_memory([](const Tensor& t, int) {
                   if (Strided(t).has_gaps())
                     bytes_of(t)[t.size[t.rank - 1] * size_of(t.dtype)] ^= 1;
                   else
                     bytes_of(t)[-1] ^= 1;  // a vector has no rows
                 })});
  all.push_back({"second run differs in one bit", "poison", "", with_memory([](const Tensor& t, int run) {
                   if (run == 1) flip_lowest_bit(bytes_of(t));
                 })});
  all.push_back({"later runs differ in one bit", "determinism", "", with_memory([](const Tensor& t, int run) {
                   if (run > 1) flip_lowest_bit(last_element(t));
                 })});
  all.push_back({"one element never written", "poison", "", with_memory([](const Tensor& t, int run) {
                   fill_poison(run % 2 ? Poison::large : Poison::nan, t.dtype, 0, 1, bytes_of(t));
                 })});
  // max(NaN, x) is x: only other poison shows that memory was read before it was written.
  all.push_back({"maximum with what memory held", "poison", "", with_memory([](const Tensor& t, int run) {
                   const double held = static_cast<double>(poison_of(run));
                   if (!std::isnan(held)) encode_real(t.dtype, held, bytes_of(t), 0);
                 })});
  all.push_back({"answers of the first call kept", "graph", "", {}});
  all.back().fault.returns_first_answers = true;
  all.push_back({"waits for the device", "asynchrony", "", {}});
  all.back().fault.waits = true;
  all.push_back({"throws", "kernel", "", {}});
  all.back().fault.throws = true;
  all.push_back({"accepts any arguments", "rejects", "", {}});
  all.back().fault.accepts_anything = true;
  all.push_back({"input byte changed", "inputs_unchanged", "", {}});
  all.back().fault.memory = [](const Problem& p, const Args& memory, int) {
    const Tensor& t = memory.tensor(p.signature.fields.front());
    if (count(t) > 0) bytes_of(t)[span_bytes(t) / 2] ^= 1;
  };
  return all;
}

// Faults that only some operators can have.
struct SpecialFault {
  const char *name, *net, *case_text;
  Fault fault;
};

std::vector<SpecialFault> special_faults() {
  std::vector<SpecialFault> all;
  all.push_back({"takes less workspace than it asks for", "workspace", "rms_norm.bwd:M=200,N=40,x=bf16", {}});
  all.back().fault.ignores_workspace = true;
  all.push_back({"writes nothing for no rows", "empty", "rms_norm.bwd:M=12,N=40,x=bf16", {}});
  all.back().fault.skips_empty = true;
  all.push_back({"bits depend on the batch", "relation:rows_alone", "rms_norm.fwd:M=12,N=40,x=f32",
                 with_memory([](const Tensor& t, int) {
                   if (t.size[0] == 1) flip_lowest_bit(bytes_of(t));
                 })});
  all.push_back({"bits depend on an optional output", "dropped_outputs", "rms_norm.fwd:M=12,N=40,x=f32", {}});
  all.back().fault.memory = [](const Problem& p, const Args& memory, int) {
    if (main_output(p) >= 0 && !p.present(p.index_of("rstd")))
      flip_lowest_bit(bytes_of(memory.tensor(main_field(p))));
  };
  all.push_back({"bits depend on what is fused", "relation:unfused", "rms_norm_fp8.fwd:M=12,N=128,x=bf16,y=bf16", {}});
  all.back().fault.memory = [](const Problem& p, const Args& memory, int) {
    const Tensor& scale = memory.tensor(*p.signature.field("scale"));
    if (count(scale) > 0) flip_lowest_bit(bytes_of(scale));
  };
  all.push_back({"nothing done in place", "compare", "swiglu.fwd:M=12,F=40,x=bf16,z.alias=1", {}});
  all.back().fault.answers = [](const Problem& p, Answers& a) { real(p, a, "z") = real(p, "x"); };
  all.push_back({"counters overwritten, not added to",
                 "compare",
                 "cross_entropy.fwd:T=24,V=40,logits=f32,labels.invalid=1,invalid_labels=i64,reduction=none",
                 {}});
  all.back().fault.answers = [](const Problem& p, Answers& a) {
    a.integers[static_cast<size_t>(p.index_of("invalid_labels"))][0] -= 5;
  };
  return all;
}

}  // namespace

void plant_protocol_faults(KillMatrix& matrix) {
  for (const std::string& subject : self_test_subjects()) {
    matrix.clean("L0", subject, reported_by(check_planted(subject, {}, CheckOptions())));
    for (const ProtocolFault& f : protocol_faults()) {
      CheckOptions options;
      options.rejects = f.fault.accepts_anything;
      const Result r = check_planted(subject + f.keys, f.fault, options);
      matrix.planted("L0", f.name, subject + f.keys, {f.net}, reported_by(r));
    }
  }
  for (const SpecialFault& f : special_faults()) {
    matrix.clean("L0", f.case_text, reported_by(check_planted(f.case_text, {}, CheckOptions())));
    const CheckOptions options = std::string(f.net) == "compare" ? kNumbersOnly : CheckOptions();
    matrix.planted("L0", f.name, f.case_text, {f.net},
                   reported_by(check_planted(f.case_text, f.fault, options)));
  }
}

}  // namespace fla::harness
