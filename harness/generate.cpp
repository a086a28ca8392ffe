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

int64_t integer_attribute(const Problem& p, const std::string& name) {
  for (const Attribute& a : p.signature.attributes)
    if (a.name == name && a.kind == Attribute::Kind::integer)
      return *reinterpret_cast<const int64_t*>(static_cast<const char*>(p.args.get()) + a.offset);
  return 0;
}

bool starts_with(const std::string& text, const char* prefix) { return text.rfind(prefix, 0) == 0; }

double extreme(DType type, uint64_t pick) {
  const double largest = type == DType::f16 ? 65504.0 : type == DType::bf16 ? 0x1.fep127 : type == DType::f8e4m3 ? 448 : 0x1.fffffep127;
  const double normal_limit = type == DType::f16 ? 0x1p-14 : type == DType::f8e4m3 ? 0x1p-6 : 0x1p-126;
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

constexpr double kGates[] = {0, 1e-3, 20, 88.8, 104, 1e4, 65504, 3e38, std::numeric_limits<double>::infinity()};

double gate(uint64_t pick) {
  constexpr uint64_t n = std::size(kGates);
  if (pick % (2 * n + 1) == 2 * n) return std::numeric_limits<double>::quiet_NaN();
  return pick % 2 ? -kGates[pick % (2 * n + 1) / 2] : kGates[pick % (2 * n + 1) / 2];
}

// A walk over all bit patterns in odd steps: as many elements as there are patterns see each of them once.
double pattern(DType type, uint64_t seed, int64_t index) {
  const uint64_t bits = (seed >> 32) + static_cast<uint64_t>(index) * (seed | 1);
  const auto word = static_cast<uint32_t>(bits);
  HostTensor one;
  one.real.resize(1);
  decode(type, &word, 1, one, 0);
  return one.real[0];
}

}  // namespace

const std::vector<std::string>& fill_names() {
  static const std::vector<std::string> names = {"normal",   "exact", "scaled", "tiny",   "offset",    "positive",
                                                 "constant", "zeros", "ties",   "masked", "confident", "extremes",
                                                 "specials", "gates",  "exhaustive", "every"};
  return names;
}

Fill fill_of(const Case& c) {
  const std::vector<std::string>& names = fill_names();
  const auto at = std::find(names.begin(), names.end(), c.find("fill").value_or("normal"));
  return static_cast<Fill>(at - names.begin());
}

int64_t extent_of(const Problem& p, const Dim& d) {
  return d.extent(d.symbol < 0 ? 0 : p.dims.at(p.signature.dims[static_cast<size_t>(d.symbol)].name));
}

bool is_upstream(const Problem& problem, const Field& field) {
  if (field.role != Role::input || field.name.size() < 2 || field.name[0] != 'd') return false;
  const std::string of = field.name.substr(1);
  if (problem.signature.field(of)) return true;
  const Direction* forward = forward_of(*problem.origin.direction);
  return forward && full_signature(*forward, true).field(of);
}

Generator::Generator(const Problem& problem, int field)
    : field_(problem.signature.fields[static_cast<size_t>(field)]),
      seed_(name_seed(mix(problem.origin.seed()), field_.name)),
      fill_(fill_of(problem.origin)),
      dtype_(problem.args.tensor(field_).dtype) {
  const Tensor& t = problem.args.tensor(field_);
  columns_ = t.rank > 0 ? std::max<int64_t>(t.size[t.rank - 1], 1) : 1;
  data_input_ = field_.content.kind == Content::real && !is_upstream(problem, field_) &&
                !starts_with(field_.name, "weight") && !starts_with(field_.name, "bias");
  const auto& fields = problem.signature.fields;
  if (fill_ == Fill::gates && std::any_of(fields.begin(), fields.begin() + field, [](const Field& f) {
        return f.role == Role::input && f.content.kind == Content::real;
      }))
    fill_ = Fill::normal;
  if (fill_ == Fill::masked && t.rank < 2) fill_ = Fill::normal;  // it has no rows
  ignore_share_ = std::stod(std::string(problem.origin.find("ignore").value_or("0")));
  if (field_.content.kind == Content::labels) {
    ignore_index_ = field_.content.special;
    const int64_t total = integer_attribute(problem, "total_classes");
    classes_ = total > 0 ? total : extent_of(problem, field_.content.bound);
    hostile_ = problem.origin.find("labels.invalid").has_value();
  }
  if (field_.content.kind == Content::slots) classes_ = extent_of(problem, field_.content.bound);
  if (const auto lens = problem.origin.find("lens"); lens && field_.content.kind == Content::groups) runs_ = lens_offsets(*lens);
  if (fill_ != Fill::confident || !data_input_) return;
  for (size_t f = 0; f < problem.signature.fields.size(); ++f)
    if (problem.signature.fields[f].content.kind == Content::labels)
      labels_ = std::make_shared<Generator>(problem, static_cast<int>(f));
}

// Steps of the golden section spread the ignored rows evenly: no seed ignores nearly all of a few.
bool Generator::is_ignored(int64_t index) const {
  const double place = static_cast<double>(index) * 0.6180339887498949 + unit(mix(seed_));
  return place - std::floor(place) < ignore_share_;
}

// A fifth of a mask is zeros unless the case says otherwise.
bool Generator::is_kept(int64_t index) const { return ignore_share_ > 0 ? !is_ignored(index) : bits(index) % 5 != 0; }

int64_t Generator::label(int64_t index) const {
  if (is_ignored(index)) return ignore_index_;
  const uint64_t pick = mix(bits(index));
  if (hostile_ && index % 3 == 1) {
    const int64_t outside[] = {-1, classes_, std::numeric_limits<int64_t>::max(), -classes_ - 7};
    const int64_t value = outside[pick % 4];
    return dtype_ == DType::i32 ? std::min<int64_t>(value, std::numeric_limits<int32_t>::max()) : value;
  }
  return static_cast<int64_t>(pick % static_cast<uint64_t>(std::max<int64_t>(classes_, 1)));
}

// Runs of random lengths, one in five of them padding; in some places every token is of another group than its neighbours, or
// of the one before them: that ids come back is legal. As `lens` says, runs of these lengths, over and over.
int64_t Generator::group(int64_t index) const {
  const int64_t t = index % columns_;
  if (!runs_.empty()) {
    const int64_t round = t / runs_.back(), within = t % runs_.back();
    const auto run = std::upper_bound(runs_.begin(), runs_.end(), within) - runs_.begin() - 1;
    return round * (static_cast<int64_t>(runs_.size()) - 1) + run;
  }
  constexpr int64_t kCell = 32;
  const int64_t cell = t / kCell;
  const uint64_t h = bits(index / columns_ * columns_ + cell);
  if (h % 3 == 0) return static_cast<int64_t>(mix(h ^ static_cast<uint64_t>(t)) % 4) - 1;
  const int64_t id = 2 * cell + (t % kCell >= static_cast<int64_t>(h >> 8) % kCell);
  return mix(h + static_cast<uint64_t>(id)) % 5 == 0 ? -1 - id : id;
}

int64_t Generator::integer(int64_t index) const {
  switch (field_.content.kind) {
    case Content::labels: return label(index);
    case Content::mask: return is_kept(index);
    case Content::groups: return group(index);
    case Content::slots: return index % 4 == 2 ? field_.content.special : classes_ - 1 - index;  // the last one first
    case Content::counters: return index == 0 ? 5 : std::numeric_limits<int64_t>::max();
    default: return static_cast<int64_t>(bits(index) % 100);
  }
}

uint64_t Generator::bits(int64_t index) const { return mix(seed_ ^ static_cast<uint64_t>(index)); }

double Generator::filled(int64_t index) const {
  const int64_t row = index / columns_, column = index % columns_;
  const uint64_t h = bits(index), row_hash = mix(~seed_ ^ static_cast<uint64_t>(row));
  const double n = normal(h);
  switch (fill_) {
    case Fill::scaled: return n * std::pow(10.0, 6 * unit(row_hash) - 3);
    case Fill::tiny: return n * 1e-3;
    case Fill::offset: return 1000 + n;
    case Fill::constant: return row % 3 == 2 ? 0.0 : normal(row_hash);
    case Fill::zeros: return 0;
    case Fill::ties: return h % 3 == 0 ? -1.0 : h % 3 == 1 ? 0.5 : 2.0;
    case Fill::extremes: return extreme(dtype_, h);
    case Fill::masked: {
      const bool hidden[] = {column >= columns_ * 2 / 3, column < columns_ / 3, column != columns_ / 2, true};
      return hidden[row % 4] ? -std::numeric_limits<double>::infinity() : n;
    }
    case Fill::specials: {
      const auto planted = static_cast<int64_t>(row_hash % static_cast<uint64_t>(columns_));
      if (column == planted && row % 4 == 1) return std::numeric_limits<double>::quiet_NaN();
      if (column == planted && row % 4 == 2) return std::numeric_limits<double>::infinity();
      return n;
    }
    case Fill::confident:
      if (!labels_) return n;
      return labels_->label(row) == column ? 0.5 * n + 40 * unit(row_hash) : 0.5 * n;
    case Fill::gates: return gate(h);
    case Fill::exhaustive: return pattern(dtype_, seed_, index);
    default: return n;
  }
}

double Generator::real(int64_t index) const {
  const uint64_t h = bits(index);
  if (field_.content.kind == Content::positive) return 0.5 + unit(h);
  if (field_.content.kind == Content::mask) return is_kept(index);
  if (fill_ == Fill::exact) {
    const double steps[] = {-1, -0.5, 0.5, 1};
    return steps[h % 4];
  }
  if (fill_ == Fill::positive) return 1 + std::fabs(normal(h));
  return data_input_ ? filled(index) : normal(h);
}

std::vector<int64_t> lens_offsets(std::string_view lens) {
  std::vector<int64_t> offsets{0};
  for (size_t from = 0; from <= lens.size();) {
    const size_t plus = std::min(lens.find('+', from), lens.size());
    offsets.push_back(offsets.back() + std::stoll(std::string(lens.substr(from, plus - from))));
    from = plus + 1;
  }
  return offsets;
}

namespace {

std::vector<int64_t> random_partition(int64_t sequences, int64_t tokens, uint64_t seed) {
  std::vector<int64_t> offsets(static_cast<size_t>(sequences) + 1);
  for (int64_t n = 1; n < sequences; ++n)
    offsets[static_cast<size_t>(n)] =
        static_cast<int64_t>(mix(seed ^ static_cast<uint64_t>(n)) % static_cast<uint64_t>(tokens + 1));
  if (sequences > 0) offsets.back() = tokens;
  std::sort(offsets.begin(), offsets.end());
  if (sequences >= 3) offsets[2] = offsets[1];  // an empty sequence in the middle
  return offsets;
}

}  // namespace

std::vector<int64_t> sequence_offsets(const Problem& problem, int64_t sequences, int64_t tokens, uint64_t seed) {
  const Case& c = problem.origin;
  const std::string lens(c.find("lens").value_or(""));
  std::vector<int64_t> offsets;
  if (lens.empty()) {
    offsets = random_partition(sequences, tokens, seed);
  } else if (lens == "equal") {
    for (int64_t n = 0; n <= sequences; ++n) offsets.push_back(sequences > 0 ? tokens * n / sequences : 0);
  } else {
    offsets = lens_offsets(lens);
  }
  if (!c.find("offsets.invalid")) return offsets;
  for (size_t n = 0; n < offsets.size(); ++n) {
    const int64_t wrong[] = {-5, tokens + 7, offsets[n], 0, tokens / 2, std::numeric_limits<int32_t>::max()};
    offsets[n] = wrong[mix(seed + n) % std::size(wrong)];
  }
  return offsets;
}

}  // namespace fla::harness
