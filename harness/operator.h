// An operator as the harness sees it: an argument struct whose type is forgotten, what it says of itself, and the
// ways to evaluate it. Built once per struct by direction<Args>() (operator_table.h); everything else in the
// harness works on these records and knows no operator by name.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "fla/describe.h"
#include "fla/status.h"
#include "fla/tensor.h"

namespace fla::harness {

struct EveryInput;

enum class Role { input, output, saved, inout };
const char* name_of(Role);

// One tensor of the argument struct.
struct Field {
  std::string name;
  Role role = Role::input;
  size_t offset = 0;  // of the Tensor in the struct
  std::vector<Dim> dims;
  Presence presence = Presence::required;
  DTypes types = 0;
  std::string like, with, alias;  // names of other fields, empty: none
  Content content;
  bool any_inner_stride = false;
};

// One attribute of the argument struct.
struct Attribute {
  enum class Kind { real, integer, boolean, choice };
  std::string name;
  Kind kind = Kind::real;
  size_t offset = 0;
  Range range;
  std::vector<std::string> choices;
  std::string fallback;  // the struct's default, printed as in a case string
};

struct NamedDim {
  std::string name;
  bool has_fallback = false;
  Dim fallback;
};

// What describe() says of one argument object; shapes and presence may depend on its attributes and on which of its
// tensors are set, so the signature belongs to the object.
struct Signature {
  std::vector<NamedDim> dims;  // Dim::symbol indexes this
  std::vector<Attribute> attributes;
  std::vector<Field> fields;

  const Field* field(const std::string& name) const;
};

// A trivially copyable argument struct of any type.
class Args {
 public:
  Args() = default;
  Args(const void* object, size_t bytes);
  void* get() { return storage_.data(); }
  const void* get() const { return storage_.data(); }
  Tensor& tensor(const Field& field);
  const Tensor& tensor(const Field& field) const;

 private:
  std::vector<std::max_align_t> storage_;
};

// Scalars that a reference can be evaluated on (reference/scalar).
enum class Scalar { real, bound, dual, single, single_serial, single_bf16_sum };

// One callable form of an operator: "fwd", "bwd", "fwd_bwd", "update", "states".
struct Direction {
  std::string op, name;
  Args defaults;
  Signature (*signature)(void* args) = nullptr;
  Status (*validate)(const void* args) = nullptr;  // what run() checks before it launches
  Status (*run)(const void* args, Workspace, Stream) = nullptr;
  size_t (*workspace_bytes)(const void* args) = nullptr;
  // Evaluates the reference. Float tensors hold arrays of the scalar type, dense or strided as the Tensor says,
  // while Tensor::dtype keeps naming the storage dtype; integer tensors hold int64_t whatever their dtype.
  void (*reference)(Scalar, const void* args) = nullptr;

  std::string sample_dim;  // rows along this dim are independent: large cases check a sample of it; empty: always whole
  std::string coupled_by;  // an attribute: cases that set it are checked whole, for no sample of rows has the sums of all
  bool batch_invariant = false;  // by promise, a row's bits do not depend on the other rows along sample_dim
  std::string backward_of;  // for "bwd": the direction whose saved tensors and names it continues ("fwd"), else empty
  // {a, b}: backward takes the forward's tensor b in place of its tensor a where the forward has b
  std::vector<std::pair<std::string, std::string>> replaced_by;
  // The same outputs by other operators, bit for bit; asked for where every output is present.
  Status (*unfused)(const void* args, Stream) = nullptr;
  // Why the backward is a definition in some input and not the derivative of the forward text as it stands (a detached term,
  // an estimator passed straight through); empty: it is the derivative. Differences must then disagree. With the name of
  // an attribute: only in cases that set it.
  std::string defined_backward, defined_with;
  double (*flops)(const void* args) = nullptr;  // model flops, for GEMM-shaped operators only
  const EveryInput* every = nullptr;  // makes and judges all inputs on the device (every_input.h), for few element-wise ones

  std::string key() const { return op + "." + name; }  // "rms_norm.bwd"
};

// Every direction of every operator, in the order of the table (harness/operators/).
const std::vector<Direction>& all_directions();
const Direction* find_direction(const std::string& key);

}  // namespace fla::harness
