#include "harness/signature.h"

#include <charconv>
#include <cmath>

namespace fla::harness {
namespace {

std::string print_real(double value) {
  if (std::isinf(value)) return value > 0 ? "inf" : "-inf";
  char text[32];
  const auto end = std::to_chars(text, text + sizeof text, static_cast<float>(value)).ptr;
  return {text, end};
}

}  // namespace

Dim SignatureBuilder::dim(const char* name) {
  Dim d;
  d.symbol = static_cast<int32_t>(signature_.dims.size());
  signature_.dims.push_back({name, false, {}});
  return d;
}

Dim SignatureBuilder::dim(const char* name, Dim fallback) {
  Dim d = dim(name);
  d.omittable = fallback.symbol < 0 && fallback.plus == 1;
  signature_.dims.back().has_fallback = true;
  signature_.dims.back().fallback = fallback;
  return d;
}

void SignatureBuilder::attribute(const char* name, float& value, Range range) {
  signature_.attributes.push_back({name, Attribute::Kind::real, offset_of(&value), range, {}, print_real(value)});
}
void SignatureBuilder::attribute(const char* name, int64_t& value, Range range) {
  signature_.attributes.push_back({name, Attribute::Kind::integer, offset_of(&value), range, {}, std::to_string(value)});
}
void SignatureBuilder::attribute(const char* name, bool& value, Range range) {
  signature_.attributes.push_back({name, Attribute::Kind::boolean, offset_of(&value), range, {}, value ? "1" : "0"});
}
void SignatureBuilder::choice(const char* name, int32_t* value, const char* const* names, int count) {
  Attribute a{name, Attribute::Kind::choice, offset_of(value), {}, {names, names + count}, {}};
  a.fallback = *value >= 0 && *value < count ? names[*value] : std::to_string(*value);
  signature_.attributes.push_back(std::move(a));
}

void SignatureBuilder::field(const char* name, Tensor& t, const Shape& s, const Rule& r, Role role) {
  Field f;
  f.name = name;
  f.role = role;
  f.offset = offset_of(&t);
  f.dims.assign(s.dims, s.dims + s.rank);
  f.presence = r.presence;
  f.types = r.types;
  f.content = r.content;
  f.any_inner_stride = r.any_inner_stride;
  links_.push_back({r.like, r.with, r.alias});
  signature_.fields.push_back(std::move(f));
}

// Rules point at the struct's own tensors; only now are all of them known by name.
Signature SignatureBuilder::take() {
  auto name_at = [&](const Tensor* t) -> std::string {
    if (!t) return {};
    for (const Field& f : signature_.fields)
      if (f.offset == offset_of(t)) return f.name;
    return {};
  };
  for (size_t i = 0; i < signature_.fields.size(); ++i) {
    signature_.fields[i].like = name_at(links_[i].like);
    signature_.fields[i].with = name_at(links_[i].with);
    signature_.fields[i].alias = name_at(links_[i].alias);
  }
  return std::move(signature_);
}

}  // namespace fla::harness
