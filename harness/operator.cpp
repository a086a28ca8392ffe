#include "harness/operator.h"

#include <cstring>

#include "harness/operators/operators.h"

namespace fla::harness {

const char* name_of(Role role) {
  switch (role) {
    case Role::input: return "input";
    case Role::output: return "output";
    case Role::saved: return "saved";
    case Role::inout: return "inout";
  }
  return "unknown";
}

const Field* Signature::field(const std::string& name) const {
  for (const Field& f : fields)
    if (f.name == name) return &f;
  return nullptr;
}

Args::Args(const void* object, size_t bytes)
    : storage_((bytes + sizeof(std::max_align_t) - 1) / sizeof(std::max_align_t)) {
  std::memcpy(storage_.data(), object, bytes);
}

Tensor& Args::tensor(const Field& field) {
  return *reinterpret_cast<Tensor*>(reinterpret_cast<char*>(storage_.data()) + field.offset);
}
const Tensor& Args::tensor(const Field& field) const {
  return *reinterpret_cast<const Tensor*>(reinterpret_cast<const char*>(storage_.data()) + field.offset);
}

const std::vector<Direction>& all_directions() {
  static const std::vector<Direction> table = [] {
    std::vector<Direction> t;
    add_norm(t);
    add_activation(t);
    add_fp8(t);
    add_loss(t);
    add_conv(t);
    add_rotary(t);
    add_token_shift(t);
    add_varlen(t);
    add_long_conv(t);
    add_gemm(t);
    add_linear(t);
    add_mlp(t);
    add_feature_map(t);
    add_learned_map(t);
    add_linear_loss(t);
    return t;
  }();
  return table;
}

const Direction* find_direction(const std::string& key) {
  // Names under which flash-linear-attention looks them up.
  static const std::pair<std::string, std::string> aliases[] = {
      {"silu.", "swish."}, {"gelu.", "gelu_tanh."}, {"bias_gelu.", "bias_gelu_tanh."},
      {"fmap_relu.", "relu."}, {"fmap_sqrelu.", "sqrelu."}, {"fmap_gelu.", "gelu_tanh."}, {"fmap_swish.", "swish."},
      {"fmap_sigmoid.", "sigmoid."}};
  for (const Direction& d : all_directions())
    if (d.key() == key) return &d;
  for (const auto& [name, ours] : aliases)
    if (key.rfind(name, 0) == 0) return find_direction(ours + key.substr(name.size()));
  return nullptr;
}

}  // namespace fla::harness
