#include "harness/case.h"

#include <algorithm>
#include <charconv>
#include <cmath>

#include "harness/case_keys.h"
#include "harness/generate.h"
#include "harness/problem.h"

namespace fla::harness {
namespace {

constexpr int64_t kLargestNumber = int64_t{1} << 48;  // of extents and layouts: their products are checked later

std::string suggestion(const std::string& text, const std::vector<std::string>& candidates) {
  const std::string near = nearest(text, candidates);
  return near.empty() ? "" : ", did you mean " + near + "?";
}

[[noreturn]] void refuse(const std::string& where, const std::string& message) { throw UsageError(where, message); }

int64_t parse_integer(const std::string& value, const std::string& key, const std::string& where) {
  int64_t number = 0;
  const auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), number);
  if (error != std::errc() || end != value.data() + value.size())
    refuse(where, key + ": \"" + value + "\" is no integer");
  return number;
}

// An extent, a length, a padding.
std::string canonical_count(const std::string& value, const std::string& key, int64_t most, const std::string& where) {
  const int64_t number = parse_integer(value, key, where);
  if (number < 0) refuse(where, key + ": " + value + " is negative");
  if (number > most) refuse(where, key + ": " + value + " is more than " + std::to_string(most));
  return std::to_string(number);
}

std::string canonical_real(const std::string& value, const std::string& key, const std::string& where) {
  if (value == "inf" || value == "-inf") return value;
  float number = 0;
  const auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), number);
  if (error != std::errc() || end != value.data() + value.size() || std::isnan(number))
    refuse(where, key + ": \"" + value + "\" is no number");
  char text[32];
  return {text, std::to_chars(text, text + sizeof text, number).ptr};
}

std::string canonical_attribute(const Attribute& a, const std::string& value, const std::string& where) {
  switch (a.kind) {
    case Attribute::Kind::integer: return std::to_string(parse_integer(value, a.name, where));
    case Attribute::Kind::real: return canonical_real(value, a.name, where);
    case Attribute::Kind::boolean:
      if (value == "0" || value == "false") return "0";
      if (value == "1" || value == "true") return "1";
      refuse(where, a.name + ": \"" + value + "\" is neither 0 nor 1");
    case Attribute::Kind::choice:
      if (std::find(a.choices.begin(), a.choices.end(), value) == a.choices.end())
        refuse(where, a.name + ": unknown value \"" + value + "\"" + suggestion(value, a.choices));
      return value;
  }
  return value;
}

std::string canonical_dtype(const CaseKey& key, const std::string& value, const std::string& where) {
  if (value == "none") {
    if (!key.may_be_absent) refuse(where, key.name + ": is required");
    return value;
  }
  std::vector<std::string> names;
  for (int i = 0; i < kDTypeCount; ++i) {
    const auto type = static_cast<DType>(i);
    names.push_back(name_of(type));
    if (value != name_of(type)) continue;
    if (!(key.types & only(type))) refuse(where, key.name + ": dtype " + value + " is not supported");
    return value;
  }
  refuse(where, key.name + ": unknown dtype \"" + value + "\"" + suggestion(value, names));
}

std::string canonical_lens(const std::string& value, const std::string& where) {
  if (value == "equal") return value;
  std::string lens;
  for (size_t from = 0; from <= value.size();) {
    const size_t plus = std::min(value.find('+', from), value.size());
    if (from > 0) lens += '+';
    lens += canonical_count(value.substr(from, plus - from), "lens", kLargestNumber / 65536, where);
    from = plus + 1;
  }
  return lens;
}

bool is_switch(const std::string& key) {
  const std::string last = key.substr(key.rfind('.') + 1);
  return last == "omit" || last == "invalid" || last == "broadcast" || last == "alias";
}

std::string canonical_harness(const CaseKey& key, const std::string& value, const std::string& where) {
  if (key.name == "fill") {
    const std::vector<std::string>& fills = fill_names();
    if (std::find(fills.begin(), fills.end(), value) == fills.end())
      refuse(where, "fill: unknown value \"" + value + "\"" + suggestion(value, fills));
    return value;
  }
  if (key.name == "lens") return canonical_lens(value, where);
  if (key.name == "ignore") {
    const std::string share = canonical_real(value, key.name, where);
    if (!(std::stod(share) >= 0 && std::stod(share) <= 1)) refuse(where, "ignore: must lie between 0 and 1");
    return share;
  }
  if (key.name == "seed") {
    uint64_t seed = 0;
    const auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), seed);
    if (error != std::errc() || end != value.data() + value.size()) refuse(where, "seed: \"" + value + "\" is no number");
    return std::to_string(seed);
  }
  const std::string count = canonical_count(value, key.name, is_switch(key.name) ? 1 : kLargestNumber, where);
  if (count == "0" && key.fallback == "1") refuse(where, key.name + ": must be positive");
  return count;
}

std::string canonical(const CaseKey& key, const std::string& value, const std::string& where) {
  switch (key.kind) {
    case KeyKind::dim: return canonical_count(value, key.name, kLargestNumber, where);
    case KeyKind::attribute: return canonical_attribute(*key.attribute, value, where);
    case KeyKind::tensor: return canonical_dtype(key, value, where);
    case KeyKind::layout:
    case KeyKind::harness: return canonical_harness(key, value, where);
  }
  return value;
}

std::string join(const Case& c, bool with_seed) {
  std::string text = c.direction->key();
  char separator = ':';
  for (const auto& [key, value] : c.values) {
    if (!with_seed && key == "seed") continue;
    text += separator + key + '=' + value;
    separator = ',';
  }
  return text;
}

const Direction& direction_named(const std::string& key, const std::string& where) {
  if (const Direction* d = find_direction(key)) return *d;
  std::vector<std::string> known;
  for (const Direction& d : all_directions()) known.push_back(d.key());
  refuse(where, "unknown operator \"" + key + "\"" + suggestion(key, known));
}

// Takes out the dimensions and dtypes that the case would have without being told, so that a problem has one name.
void drop_defaults(Case& c, const std::vector<CaseKey>& keys) {
  const std::string whole = shape_text(c);
  for (const CaseKey& key : keys) {
    if ((key.kind != KeyKind::dim && key.kind != KeyKind::tensor) || !c.find(key.name)) continue;
    Case shorter = c;
    std::erase_if(shorter.values, [&](const auto& v) { return v.first == key.name; });
    try {
      if (shape_text(shorter) == whole) c = std::move(shorter);
    } catch (const UsageError&) {
      continue;  // it needs the key
    }
  }
}

}  // namespace

UsageError::UsageError(std::string where_, std::string message_)
    : where(std::move(where_)), message(std::move(message_)), full(where + ": " + message) {}

std::optional<std::string_view> Case::find(std::string_view key) const {
  for (const auto& [k, v] : values)
    if (k == key) return v;
  return std::nullopt;
}

std::string Case::text() const { return join(*this, true); }
std::string Case::key() const { return join(*this, false); }

uint64_t Case::seed() const {
  if (const auto given = find("seed")) return std::stoull(std::string(*given));
  uint64_t hash = 0xcbf29ce484222325u;  // FNV-1a
  for (const char c : key()) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3u;
  return hash;
}

Case make_case(const Direction& direction, const std::map<std::string, std::string>& values, const std::string& where) {
  const std::vector<CaseKey>& keys = case_keys(direction);
  for (const auto& [name, value] : values) {
    if (std::any_of(keys.begin(), keys.end(), [&, n = name](const CaseKey& k) { return k.name == n; })) continue;
    std::vector<std::string> known;
    for (const CaseKey& k : keys) known.push_back(k.name);
    refuse(where, "unknown key \"" + name + "\" of " + direction.key() + suggestion(name, known));
  }
  Case c;
  c.direction = &direction;
  for (const CaseKey& key : keys) {
    const auto given = values.find(key.name);
    if (given == values.end()) continue;
    const std::string value = canonical(key, given->second, where);
    if (!key.fallback.empty() && value == key.fallback) continue;
    c.values.emplace_back(key.name, value);
  }
  try {
    make_problem(c, false);
  } catch (const UsageError& e) {
    refuse(where, e.where == where ? e.message : e.full);
  }
  drop_defaults(c, keys);
  return c;
}

Case parse_case(std::string_view text) {
  const std::string where(text);
  const size_t colon = text.find(':');
  const Direction& direction = direction_named(std::string(text.substr(0, colon)), where);
  std::map<std::string, std::string> values;
  std::string_view rest = colon == std::string_view::npos ? std::string_view{} : text.substr(colon + 1);
  while (!rest.empty()) {
    const size_t comma = std::min(rest.find(','), rest.size());
    const std::string_view entry = rest.substr(0, comma);
    const size_t equals = entry.find('=');
    if (equals == std::string_view::npos || equals == 0)
      refuse(where, "\"" + std::string(entry) + "\" is not key=value");
    if (!values.emplace(entry.substr(0, equals), entry.substr(equals + 1)).second)
      refuse(where, "\"" + std::string(entry.substr(0, equals)) + "\" is given twice");
    rest = comma == rest.size() ? std::string_view{} : rest.substr(comma + 1);
  }
  return make_case(direction, values, where);
}

}  // namespace fla::harness
