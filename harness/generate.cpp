#include "harness/generate.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "harness/case_keys.h"

namespace fla::harness {
namespace {

uint64_t mix(uint64_t x) {  // splitmix64
  x += 0x9e3779b97f4a7c15u;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

uint64_t name_seed(uint64_t seed, const std::string& name) {
  for (const char c : name) seed = mix(seed ^ static_cast<unsigned char>(c));
  return seed;
}

double unit(uint64_t bits) { return (static_cast<double>(bits >> 40) + 0.5) * 0x1p-24; }

double normal(uint64_t bits) {
  const double radius = std::sqrt(-2 * std::log(unit(bits)));
  return radius * std::cos(6.283185307179586 * unit(bits << 24));
}

int64_t dim_value(const Problem& p, const Dim& d) {
  if (d.symbol < 0) return d.plus;
  return p.dims.at(p.signature.dims[static_cast<size_t>(d.symbol)].name) * d.times / d.over + d.plus;
}

int64_t integer_attribute(const Problem& p, const std::string& name) {
  for (const Attribute& a : p.signature.attributes)
    if (a.name == name && a.kind == Attribute::Kind::integer)
      return *reinterpret_cast<const int64_t*>(static_cast<const char*>(p.args.get()) + a.offset);
  return 0;
}

bool starts_with(const std::string& text, const char* prefix) { return text.rfind(prefix, 0) == 0; }

double extreme(DType type, uint64_t pick) {
  const double largest = type == DType::f16 ? 65504.0 : type == DType::bf16 ? 0x1.fep127 : 0x1.fffffep127;
  const double normal_limit = type == DType::f16 ? 0x1p-14 : 0x1p-126;
  switch (pick % 8) {
    case 0: return largest;
    case 1: return -largest;
    case 2: return normal_limit;
    case 3: return normal_limit / 4;  // subnormal in every dtype
    case 4: return -0.0;
    case 5: return 1;
    case 6: return -1;
    default: return largest / 2;
  }
}

}  // namespace

bool is_upstream(const Problem& problem, const Field& field) {
  if (field.role != Role::input || field.name.size() < 2 || field.name[0] != 'd') return false;
  const std::string of = field.name.substr(1);
  if (problem.signature.field(of)) return true;
  const Direction* forward = forward_of(*problem.origin.direction);
  return forward && full_signature(*forward, true).field(of);
}

Generator::Generator(const Problem& problem, int field)
    : problem_(problem),
      field_(problem.signature.fields[static_cast<size_t>(field)]),
      seed_(name_seed(mix(problem.origin.seed()), field_.name)),
      fill_(problem.origin.find("fill").value_or("normal")),
      dtype_(problem.args.tensor(field_).dtype) {
  const Tensor& t = problem.args.tensor(field_);
  columns_ = t.rank > 0 ? std::max<int64_t>(t.size[t.rank - 1], 1) : 1;
  data_input_ = field_.content.kind == Content::real && !is_upstream(problem, field_) &&
                !starts_with(field_.name, "weight") && !starts_with(field_.name, "bias");
  if (field_.content.kind == Content::labels) {
    ignore_index_ = field_.content.special;
    const int64_t total = integer_attribute(problem, "total_classes");
    classes_ = total > 0 ? total : dim_value(problem, field_.content.bound);
    ignore_share_ = std::stod(std::string(problem.origin.find("ignore").value_or("0")));
    hostile_ = problem.origin.find("labels.invalid").has_value();
  }
  if (fill_ == "confident")
    for (size_t f = 0; f < problem.signature.fields.size(); ++f)
      if (problem.signature.fields[f].content.kind == Content::labels) labels_field_ = static_cast<int>(f);
}

int64_t Generator::label(int64_t index) const {
  const uint64_t h = mix(seed_ ^ static_cast<uint64_t>(index));
  if (unit(h) < ignore_share_) return ignore_index_;
  const uint64_t pick = mix(h);
  if (hostile_ && index % 3 == 1) {
    const int64_t outside[] = {-1, classes_, std::numeric_limits<int64_t>::max(), -classes_ - 7};
    const int64_t value = outside[pick % 4];
    return dtype_ == DType::i32 ? std::min<int64_t>(value, std::numeric_limits<int32_t>::max()) : value;
  }
  return static_cast<int64_t>(pick % static_cast<uint64_t>(std::max<int64_t>(classes_, 1)));
}

int64_t Generator::integer(int64_t index) const {
  switch (field_.content.kind) {
    case Content::labels: return label(index);
    case Content::mask: return mix(seed_ ^ static_cast<uint64_t>(index)) % 5 != 0;
    case Content::counters: return index == 0 ? 5 : std::numeric_limits<int64_t>::max();
    default: return static_cast<int64_t>(mix(seed_ ^ static_cast<uint64_t>(index)) % 100);
  }
}

double Generator::cheap_real(int64_t index) const {
  return (unit(mix(seed_ ^ static_cast<uint64_t>(index))) - 0.5) * 3.4;
}

double Generator::filled(int64_t index) const {
  const int64_t row = index / columns_, column = index % columns_;
  const uint64_t h = mix(seed_ ^ static_cast<uint64_t>(index)), row_hash = mix(~seed_ ^ static_cast<uint64_t>(row));
  const double n = normal(h);
  if (fill_ == "scaled") return n * std::pow(10.0, 6 * unit(row_hash) - 3);
  if (fill_ == "tiny") return n * 1e-3;
  if (fill_ == "offset") return 1000 + n;
  if (fill_ == "constant") return row % 3 == 2 ? 0.0 : normal(row_hash);
  if (fill_ == "zeros") return 0;
  if (fill_ == "ties") return h % 3 == 0 ? -1.0 : h % 3 == 1 ? 0.5 : 2.0;
  if (fill_ == "extremes") return extreme(dtype_, h);
  if (fill_ == "masked") {
    const bool hidden[] = {column >= columns_ * 2 / 3, column < columns_ / 3, column != columns_ / 2, true};
    return hidden[row % 4] ? -std::numeric_limits<double>::infinity() : n;
  }
  if (fill_ == "specials") {
    const auto planted = static_cast<int64_t>(row_hash % static_cast<uint64_t>(columns_));
    if (column == planted && row % 4 == 1) return std::numeric_limits<double>::quiet_NaN();
    if (column == planted && row % 4 == 2) return std::numeric_limits<double>::infinity();
    return n;
  }
  if (fill_ == "confident" && labels_field_ >= 0) {
    const Generator labels(problem_, labels_field_);
    return labels.label(row) == column ? 0.5 * n + 40 * unit(row_hash) : 0.5 * n;
  }
  return n;
}

double Generator::real(int64_t index) const {
  const uint64_t h = mix(seed_ ^ static_cast<uint64_t>(index));
  if (field_.content.kind == Content::positive) return 0.5 + unit(h);
  if (field_.content.kind == Content::mask) return h % 5 != 0;
  if (fill_ == "exact") {
    const double steps[] = {-1, -0.5, 0.5, 1};
    return steps[h % 4];
  }
  if (fill_ == "positive") return 1 + std::fabs(normal(h));
  return data_input_ ? filled(index) : normal(h);
}

std::vector<int64_t> sequence_offsets(const Problem& problem, int64_t sequences, int64_t tokens, uint64_t seed) {
  std::vector<int64_t> offsets(static_cast<size_t>(sequences) + 1);
  const std::string lens(problem.origin.find("lens").value_or(""));
  if (lens == "equal") {
    for (int64_t n = 0; n <= sequences; ++n) offsets[static_cast<size_t>(n)] = tokens * n / sequences;
  } else if (!lens.empty()) {
    size_t from = 0;
    for (int64_t n = 1; n <= sequences; ++n) {
      const size_t plus = std::min(lens.find('+', from), lens.size());
      offsets[static_cast<size_t>(n)] = offsets[static_cast<size_t>(n - 1)] + std::stoll(lens.substr(from, plus - from));
      from = plus + 1;
    }
  } else {
    for (int64_t n = 1; n < sequences; ++n)
      offsets[static_cast<size_t>(n)] =
          static_cast<int64_t>(mix(seed ^ static_cast<uint64_t>(n)) % static_cast<uint64_t>(tokens + 1));
    offsets.back() = tokens;
    std::sort(offsets.begin(), offsets.end());
    if (sequences >= 3) offsets[2] = offsets[1];  // an empty sequence in the middle
  }
  if (problem.origin.find("offsets.invalid"))
    for (int64_t n = 1; n <= sequences; ++n) {
      const int64_t wrong[] = {-5, tokens + 7, offsets[static_cast<size_t>(n)], 0, tokens / 2};
      offsets[static_cast<size_t>(n)] = wrong[mix(seed + static_cast<uint64_t>(n)) % 5];
    }
  return offsets;
}

}  // namespace fla::harness
