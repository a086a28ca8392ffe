// Narrowing a selection: globs, axes, value ranges.
#include <algorithm>
#include <charconv>

#include "harness/suite.h"

namespace fla::harness {
namespace {

bool matches(std::string_view text, std::string_view glob) {
  size_t t = 0, g = 0, star = std::string_view::npos, resume = 0;
  while (t < text.size()) {
    if (g < glob.size() && (glob[g] == '?' || glob[g] == text[t])) {
      ++t, ++g;
    } else if (g < glob.size() && glob[g] == '*') {
      star = g++;
      resume = t;
    } else if (star != std::string_view::npos) {
      g = star + 1;
      t = ++resume;
    } else {
      return false;
    }
  }
  while (g < glob.size() && glob[g] == '*') ++g;
  return g == glob.size();
}

bool parse(std::string_view text, int64_t& value) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  return error == std::errc() && end == text.data() + text.size() && !text.empty();
}

constexpr size_t kMostValues = 10000;

// "2^10..2^16": every power between; false when the text is no such range.
bool expand_powers(std::string_view low, std::string_view high, std::vector<std::string>& values) {
  int64_t first = 0, last = 0;
  if (low.rfind("2^", 0) != 0 || high.rfind("2^", 0) != 0) return false;
  if (!parse(low.substr(2), first) || !parse(high.substr(2), last) || first < 0 || last > 62) return false;
  for (int64_t e = first; e <= last; ++e) values.push_back(std::to_string(int64_t{1} << e));
  return true;
}

// "64..1024:64": an arithmetic range; the step is 1 where none is given.
bool expand_steps(std::string_view low, std::string_view high, std::vector<std::string>& values) {
  int64_t first = 0, last = 0, step = 1;
  const size_t colon = high.find(':');
  if (colon != std::string_view::npos && !parse(high.substr(colon + 1), step)) return false;
  if (!parse(low, first) || !parse(high.substr(0, colon), last) || step < 1) return false;
  for (int64_t v = first; v <= last && values.size() <= kMostValues; v += step) values.push_back(std::to_string(v));
  return true;
}

}  // namespace

std::vector<std::string> expand_values(const std::string& text, const std::string& where) {
  std::vector<std::string> values;
  size_t from = 0;
  while (from <= text.size()) {
    const size_t comma = std::min(text.find(',', from), text.size());
    const std::string_view part = std::string_view(text).substr(from, comma - from);
    from = comma + 1;
    const size_t dots = part.find("..");
    if (dots == std::string_view::npos) {
      if (part.empty()) throw UsageError(where, "an empty value in \"" + text + "\"");
      values.emplace_back(part);
      continue;
    }
    const size_t before = values.size();
    const std::string_view low = part.substr(0, dots), high = part.substr(dots + 2);
    if (!expand_powers(low, high, values) && !expand_steps(low, high, values))
      throw UsageError(where, "\"" + std::string(part) + "\" is no range");
    if (values.size() == before) throw UsageError(where, "\"" + std::string(part) + "\" is empty");
    if (values.size() > kMostValues) throw UsageError(where, "\"" + text + "\" has too many values");
  }
  return values;
}

void filter_cases(std::vector<Case>& cases, const std::vector<std::string>& globs) {
  if (globs.empty()) return;
  const bool any_positive = std::any_of(globs.begin(), globs.end(), [](const std::string& g) { return g[0] != '-'; });
  std::erase_if(cases, [&](const Case& c) {
    const std::string text = c.text();
    bool wanted = !any_positive;
    for (const std::string& g : globs) {
      if (g[0] == '-' && matches(text, std::string_view(g).substr(1))) return true;
      if (g[0] != '-' && matches(text, g)) wanted = true;
    }
    return !wanted;
  });
}

void override_axes(std::vector<Case>& cases, const std::vector<std::string>& axes) {
  for (const std::string& axis : axes) {
    const size_t equals = axis.find('=');
    if (equals == std::string::npos || equals == 0) throw UsageError("--axis", "\"" + axis + "\" is not KEY=VALUES");
    const std::string key = axis.substr(0, equals);
    const std::vector<std::string> values = expand_values(axis.substr(equals + 1), "--axis " + axis);
    std::vector<Case> replaced;
    bool found = false;
    for (const Case& c : cases) {
      if (!c.find(key)) {
        replaced.push_back(c);
        continue;
      }
      found = true;
      for (const std::string& value : values) {
        std::map<std::string, std::string> entries(c.values.begin(), c.values.end());
        entries[key] = value;
        Case changed = make_case(*c.direction, entries, "--axis " + axis);
        changed.tier = c.tier;
        replaced.push_back(std::move(changed));
      }
    }
    if (!found && !cases.empty()) throw UsageError("--axis " + axis, "no selected case has the key " + key);
    cases = std::move(replaced);
  }
}

}  // namespace fla::harness
