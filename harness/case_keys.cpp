#include "harness/case_keys.h"

#include <algorithm>
#include <map>
#include <memory>
#include <mutex>

namespace fla::harness {
namespace {

void add_dims(const Signature& s, std::vector<CaseKey>& keys) {
  for (const NamedDim& d : s.dims) {
    const bool known = std::any_of(keys.begin(), keys.end(), [&](const CaseKey& k) { return k.name == d.name; });
    if (known) continue;
    const bool constant = d.has_fallback && d.fallback.symbol < 0;
    keys.push_back({d.name, KeyKind::dim, constant ? std::to_string(d.fallback.plus) : "", nullptr, 0, false});
  }
}

void add_attributes(const Signature& s, std::vector<CaseKey>& keys) {
  for (const Attribute& a : s.attributes) {
    const bool known = std::any_of(keys.begin(), keys.end(), [&](const CaseKey& k) { return k.name == a.name; });
    if (!known) keys.push_back({a.name, KeyKind::attribute, a.fallback, &a, 0, false});
  }
}

void add_tensors(const Signature& s, std::vector<CaseKey>& keys) {
  for (const Field& f : s.fields) {
    auto known = std::find_if(keys.begin(), keys.end(), [&](const CaseKey& k) { return k.name == f.name; });
    const bool optional = f.presence != Presence::required || !f.with.empty();
    if (known == keys.end()) keys.push_back({f.name, KeyKind::tensor, "", nullptr, f.types, optional});
    else known->types |= f.types, known->may_be_absent |= optional;
  }
}

std::vector<CaseKey> make_keys(const Direction& direction) {
  // Attributes are pointed at: their signatures live as long as the cache.
  static std::vector<std::unique_ptr<Signature>> kept;
  std::vector<const Signature*> signatures;
  auto keep = [&](const Direction& d) {
    for (const bool present : {true, false}) {
      kept.push_back(std::make_unique<Signature>(full_signature(d, present)));
      signatures.push_back(kept.back().get());
    }
  };
  keep(direction);
  if (const Direction* forward = forward_of(direction)) keep(*forward);
  std::vector<CaseKey> keys;
  for (const Signature* s : signatures) add_dims(*s, keys);
  for (const Signature* s : signatures) add_attributes(*s, keys);
  const size_t first_tensor = keys.size();
  for (const Signature* s : signatures) add_tensors(*s, keys);
  std::vector<std::string> tensors;
  for (size_t i = first_tensor; i < keys.size(); ++i) tensors.push_back(keys[i].name);
  for (const std::string& t : tensors)
    for (const char* layout : {"pad", "gap", "shift", "inner", "broadcast", "alias"})
      keys.push_back({t + "." + layout, KeyKind::layout, std::string(layout) == "inner" ? "1" : "0", nullptr, 0, false});
  for (const char* all : {"all.pad", "all.shift"}) keys.push_back({all, KeyKind::layout, "0", nullptr, 0, false});
  keys.push_back({"omit", KeyKind::harness, "0", nullptr, 0, false});
  keys.push_back({"fill", KeyKind::harness, "normal", nullptr, 0, false});
  keys.push_back({"lens", KeyKind::harness, "", nullptr, 0, false});
  keys.push_back({"ignore", KeyKind::harness, "0", nullptr, 0, false});
  keys.push_back({"labels.invalid", KeyKind::harness, "0", nullptr, 0, false});
  keys.push_back({"offsets.invalid", KeyKind::harness, "0", nullptr, 0, false});
  keys.push_back({"slices", KeyKind::harness, "", nullptr, 0, false});
  keys.push_back({"seed", KeyKind::harness, "", nullptr, 0, false});
  return keys;
}

size_t edits(const std::string& a, const std::string& b) {
  std::vector<size_t> row(b.size() + 1);
  for (size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (size_t i = 1; i <= a.size(); ++i) {
    size_t diagonal = row[0];
    row[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      const size_t above = row[j];
      row[j] = std::min({above + 1, row[j - 1] + 1, diagonal + (a[i - 1] != b[j - 1])});
      diagonal = above;
    }
  }
  return row.back();
}

}  // namespace

const Direction* forward_of(const Direction& direction) {
  if (direction.backward_of.empty()) return nullptr;
  return find_direction(direction.op + "." + direction.backward_of);
}

Signature full_signature(const Direction& direction, bool present) {
  Args args = direction.defaults;
  Signature s = direction.signature(args.get());
  for (const Field& f : s.fields) {
    args.tensor(f) = {};
    if (present) args.tensor(f).rank = 1;
  }
  return direction.signature(args.get());
}

const std::vector<CaseKey>& case_keys(const Direction& direction) {
  static std::mutex mutex;
  static std::map<const Direction*, std::vector<CaseKey>> cache;
  const std::lock_guard lock(mutex);
  auto [entry, fresh] = cache.try_emplace(&direction);
  if (fresh) entry->second = make_keys(direction);
  return entry->second;
}

std::string nearest(const std::string& text, const std::vector<std::string>& candidates) {
  std::string best;
  size_t fewest = text.size() / 2 + 2;
  for (const std::string& c : candidates) {
    const size_t n = edits(text, c);
    if (n < fewest) fewest = n, best = c;
  }
  return best;
}

}  // namespace fla::harness
