// Judging tensors that came from elsewhere: a PyTorch run, a training crash, another library's test.
//
// A replay file is a safetensors file. Tensors `in.<field>` are the inputs of one operator, `out.<field>`
// what somebody claims its outputs to be; metadata `op` names it ("rms_norm_fwd") and `attrs` holds its
// attributes as the text of a JSON object. Claims may be of any float dtype, wider than the operator's too:
// an F64 claim is judged as stored in F64, so it must lie within the error bound of a good fp32 evaluation.
#pragma once

#include <string>
#include <vector>

#include "harness/device.h"
#include "harness/problem.h"
#include "harness/safetensors.h"

namespace fla::harness {

struct Claim {
  int field = -1;
  DType dtype = DType::f32;  // of the claim, not of the operator's output
  TensorFile::Entry entry;
};

struct Replay {
  Problem problem;  // dense, whole, dims inferred from the tensors
  std::vector<Claim> claims;
};

// Throws UsageError for everything that the operator would refuse. With `values` false, reads no tensor data.
Replay read_replay(const TensorFile&, bool values = true);

// One tensor of the file, of the shape it has there.
HostTensor read_host_tensor(const TensorFile&, const TensorFile::Entry&);

// Judges the file's claims, and on `device` (null: none) our kernel on the same inputs.
Result judge_replay(const std::string& path, Device* device);

// Writes the case's inputs and the reference's outputs (F64, or the integers' own dtype) as a replay file.
// Throws UsageError for a case, reports::WriteError for a file that cannot be.
void dump_case(const Case&, const std::string& path);

}  // namespace fla::harness
