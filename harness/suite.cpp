// Reading suite files: strictly, because a typo that is skipped is a case that is never run.
#include "harness/suite.h"

#include <algorithm>
#include <array>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <set>

#include "harness/case_keys.h"

namespace fla::harness {
namespace {

using Json = nlohmann::ordered_json;

constexpr size_t kLargestFile = 16 << 20;
constexpr int kDeepest = 64;
const std::vector<std::string> kTiers = {"smoke", "ci", "full", "nightly", "exhaustive", "bench", "regression"};

std::string read_text(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw UsageError(path, "cannot be read");
  std::string text;
  char block[1 << 16];
  while (file.read(block, sizeof block) || file.gcount() > 0) {
    text.append(block, static_cast<size_t>(file.gcount()));
    if (text.size() > kLargestFile) throw UsageError(path, "larger than 16 MiB");
  }
  return text;
}

// The parser keeps the last of two equal keys; this watches for the second, and knows where in the document it is.
// Depth is bounded here too.
class Watch {
 public:
  bool operator()(int depth, Json::parse_event_t event, const Json& parsed) {
    if (!problem_.empty()) return false;
    if (depth > kDeepest) return refuse("nested deeper than 64 levels");
    switch (event) {
      case Json::parse_event_t::object_start:
      case Json::parse_event_t::array_start:
        next_element();
        open_.push_back({event == Json::parse_event_t::array_start, {}, {}, 0});
        break;
      case Json::parse_event_t::object_end:
      case Json::parse_event_t::array_end: open_.pop_back(); break;
      case Json::parse_event_t::value: next_element(); break;
      case Json::parse_event_t::key:
        open_.back().key = parsed.get<std::string>();
        if (!open_.back().seen.insert(open_.back().key).second) return refuse("this key stands twice");
        break;
    }
    return true;
  }

  const std::string& problem() const { return problem_; }
  const std::string& pointer() const { return pointer_; }

 private:
  struct Level {
    bool is_array;
    std::string key;
    std::set<std::string> seen;
    size_t elements;
  };

  void next_element() {
    if (!open_.empty() && open_.back().is_array) open_.back().key = std::to_string(open_.back().elements++);
  }
  bool refuse(const std::string& what) {
    problem_ = what;
    pointer_ = "#";
    for (size_t i = 0; i < open_.size() && i < 8; ++i) pointer_ += "/" + open_[i].key;
    return false;
  }

  std::vector<Level> open_;
  std::string problem_, pointer_;
};

Json parse_strictly(const std::string& text, const std::string& path) {
  Watch watch;
  Json document;
  try {
    document = Json::parse(
        text, [&](int depth, Json::parse_event_t event, Json& parsed) { return watch(depth, event, parsed); },
        true, true);
  } catch (const nlohmann::json::exception& e) {
    if (!watch.problem().empty()) throw UsageError(path + watch.pointer(), watch.problem());
    std::string message = e.what();
    std::replace(message.begin(), message.end(), '\n', ' ');
    throw UsageError(path, message);
  }
  if (!watch.problem().empty()) throw UsageError(path + watch.pointer(), watch.problem());
  return document;
}

std::string value_text(const Json& value, const std::string& where) {
  if (value.is_string()) return value.get<std::string>();
  if (value.is_boolean()) return value.get<bool>() ? "1" : "0";
  if (value.is_number()) return value.dump();
  throw UsageError(where, "neither number, string nor boolean");
}

std::vector<std::string> value_list(const Json& value, const std::string& where) {
  std::vector<std::string> list;
  auto add = [&](const Json& v, const std::string& at) {
    const std::string text = value_text(v, at);
    if (!v.is_string() || text.find("..") == std::string::npos) return list.push_back(text);
    for (std::string& expanded : expand_values(text, at)) list.push_back(std::move(expanded));
  };
  if (!value.is_array()) add(value, where);
  else
    for (size_t i = 0; i < value.size(); ++i) add(value[i], where + "/" + std::to_string(i));
  if (list.empty()) throw UsageError(where, "an empty list");
  return list;
}

using Row = std::map<std::string, std::string>;
using Axes = std::vector<std::pair<std::string, std::vector<std::string>>>;

Axes read_axes(const Json& object, const std::string& where) {
  if (!object.is_object() || object.empty()) throw UsageError(where, "not an object of axes");
  Axes axes;
  for (const auto& [key, value] : object.items()) axes.emplace_back(key, value_list(value, where + "/" + key));
  return axes;
}

std::vector<Row> product(const Axes& axes) {
  std::vector<Row> rows{{}};
  for (const auto& [key, values] : axes) {
    std::vector<Row> longer;
    for (const Row& row : rows)
      for (const std::string& v : values) {
        longer.push_back(row);
        longer.back()[key] = v;
      }
    rows = std::move(longer);
  }
  return rows;
}

std::vector<Row> zip(const Axes& axes, const std::string& where) {
  std::vector<Row> rows(axes.front().second.size());
  for (const auto& [key, values] : axes) {
    if (values.size() != rows.size()) throw UsageError(where + "/" + key, "lists of a zip must be equally long");
    for (size_t i = 0; i < rows.size(); ++i) rows[i][key] = values[i];
  }
  return rows;
}

// Rows such that every pair of values of every two axes stands in one of them. Greedy: each row starts with a pair not
// yet covered and takes, axis by axis, the value that covers most.
class Pairwise {
 public:
  explicit Pairwise(const Axes& axes) : axes_(axes) {
    for (size_t a = 0; a < axes.size(); ++a)
      for (size_t b = a + 1; b < axes.size(); ++b)
        for (size_t i = 0; i < axes[a].second.size(); ++i)
          for (size_t j = 0; j < axes[b].second.size(); ++j) open_.insert({a, i, b, j});
  }

  std::vector<Row> rows() {
    if (axes_.size() < 2) return product(axes_);
    std::vector<Row> all;
    while (!open_.empty()) all.push_back(next_row(all.size()));
    return all;
  }

 private:
  using Pair = std::array<size_t, 4>;

  Row next_row(size_t turn) {
    constexpr size_t kUnset = static_cast<size_t>(-1);
    std::vector<size_t> chosen(axes_.size(), kUnset);
    const Pair first = *open_.begin();
    chosen[first[0]] = first[1];
    chosen[first[2]] = first[3];
    for (size_t a = 0; a < axes_.size(); ++a) {
      if (chosen[a] != kUnset) continue;
      const size_t values = axes_[a].second.size();
      size_t best = turn % values, most = covered(chosen, a, best);  // ties move on from row to row
      for (size_t v = 0; v < values; ++v)
        if (const size_t n = covered(chosen, a, v); n > most) most = n, best = v;
      chosen[a] = best;
    }
    Row row;
    for (size_t a = 0; a < axes_.size(); ++a) {
      row[axes_[a].first] = axes_[a].second[chosen[a]];
      for (size_t b = a + 1; b < axes_.size(); ++b) open_.erase({a, chosen[a], b, chosen[b]});
    }
    return row;
  }

  size_t covered(const std::vector<size_t>& chosen, size_t axis, size_t value) const {
    size_t n = 0;
    for (size_t other = 0; other < chosen.size(); ++other) {
      if (other == axis || chosen[other] == static_cast<size_t>(-1)) continue;
      n += other < axis ? open_.count({other, chosen[other], axis, value}) : open_.count({axis, value, other, chosen[other]});
    }
    return n;
  }

  const Axes& axes_;
  std::set<Pair> open_;
};

bool tier_selected(const std::string& entry, const std::string& wanted) {
  if (entry == wanted) return true;
  const std::vector<std::string> nested = {"smoke", "ci", "full", "nightly"};
  const auto limit = std::find(nested.begin(), nested.end(), wanted);
  if (limit == nested.end()) return false;
  if (entry == "regression") return wanted != "smoke";
  return std::find(nested.begin(), limit, entry) != limit;
}

class SuiteReader {
 public:
  SuiteReader(std::string path, const std::string& tier, std::vector<Case>& cases)
      : path_(std::move(path)), tier_(tier), cases_(cases) {}

  std::string read() {
    const std::string text = read_text(path_);
    const Json document = parse_strictly(text, path_);
    if (!document.is_object()) throw UsageError(path_, "not an object");
    allow(document, {"schema", "operator", "cases"}, "#");
    if (document.value("schema", Json()) != 1) throw UsageError(path_ + "#/schema", "must be 1");
    if (!document.contains("operator")) throw UsageError(path_ + "#/operator", "missing");
    operators_ = value_list(document["operator"], path_ + "#/operator");
    if (!document.contains("cases") || !document["cases"].is_array() || document["cases"].empty())
      throw UsageError(path_ + "#/cases", "not a list of cases");
    for (size_t i = 0; i < document["cases"].size(); ++i) read_entry(document["cases"][i], "#/cases/" + std::to_string(i));
    uint64_t hash = 0xcbf29ce484222325u;
    for (const char c : text) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3u;
    char hex[17];
    std::snprintf(hex, sizeof hex, "%016llx", static_cast<unsigned long long>(hash));
    return hex;
  }

 private:
  void allow(const Json& object, const std::vector<std::string>& keys, const std::string& at) const {
    for (const auto& [key, value] : object.items()) {
      if (std::find(keys.begin(), keys.end(), key) != keys.end()) continue;
      const std::string near = nearest(key, keys);
      throw UsageError(path_ + at + "/" + key, "unknown key" + (near.empty() ? "" : ", did you mean " + near + "?"));
    }
  }

  void read_entry(const Json& entry, const std::string& at) {
    if (!entry.is_object()) throw UsageError(path_ + at, "not an object");
    allow(entry, {"tier", "name", "operator", "direction", "product", "zip", "pairwise", "set", "case"}, at);
    const std::string tier = entry.contains("tier") ? value_text(entry["tier"], path_ + at + "/tier") : "";
    if (std::find(kTiers.begin(), kTiers.end(), tier) == kTiers.end())
      throw UsageError(path_ + at + "/tier", "unknown tier \"" + tier + "\"");
    const std::string name = entry.contains("name") ? value_text(entry["name"], path_ + at + "/name") : "";
    if (entry.contains("case")) {
      if (entry.size() > 2u + entry.contains("name")) throw UsageError(path_ + at, "a case stands alone");
      const std::string text = value_text(entry["case"], path_ + at + "/case");
      Case c = parse_case(text);
      if (!is_of_suite(c.direction->op)) throw UsageError(path_ + at + "/case", "is not of " + operators_text());
      return add(std::move(c), tier, name, at);
    }
    const std::vector<Row> rows = read_rows(entry, at);
    if (!entry.contains("direction")) throw UsageError(path_ + at, "no direction");
    const std::vector<std::string> directions = value_list(entry["direction"], path_ + at + "/direction");
    for (const std::string& op : operators_of(entry, at)) {
      for (const std::string& d : directions) {
        const Direction* direction = find_direction(op + "." + d);
        if (!direction) throw UsageError(path_ + at + "/direction", "unknown: " + op + "." + d);
        for (const Row& row : rows) add(make_case(*direction, row, path_ + at), tier, name, at, entry.contains("pairwise"));
      }
    }
  }

  bool is_of_suite(const std::string& op) const {
    return std::find(operators_.begin(), operators_.end(), op) != operators_.end();
  }

  std::string operators_text() const {
    std::string text;
    for (const std::string& op : operators_) text += (text.empty() ? "" : ", ") + op;
    return text;
  }

  std::vector<std::string> operators_of(const Json& entry, const std::string& at) const {
    if (!entry.contains("operator")) return operators_;
    const std::string where = path_ + at + "/operator";
    std::vector<std::string> some = value_list(entry["operator"], where);
    for (const std::string& op : some)
      if (!is_of_suite(op)) throw UsageError(where, op + " is not of " + operators_text());
    return some;
  }

  std::vector<Row> read_rows(const Json& entry, const std::string& at) const {
    std::vector<Row> rows;
    int kinds = 0;
    for (const char* kind : {"product", "zip", "pairwise"}) {
      if (!entry.contains(kind)) continue;
      ++kinds;
      const std::string where = path_ + at + "/" + kind;
      const Axes axes = read_axes(entry[kind], where);
      rows = kind[0] == 'z' ? zip(axes, where) : kind[1] == 'r' ? product(axes) : Pairwise(axes).rows();
    }
    if (kinds != 1) throw UsageError(path_ + at, "needs one of product, zip, pairwise, case");
    if (!entry.contains("set")) return rows;
    for (const auto& [key, values] : read_axes(entry["set"], path_ + at + "/set")) {
      if (values.size() != 1) throw UsageError(path_ + at + "/set/" + key, "takes one value");
      for (Row& row : rows)
        if (!row.emplace(key, values[0]).second) throw UsageError(path_ + at + "/set/" + key, "is an axis too");
    }
    return rows;
  }

  void add(Case c, const std::string& tier, const std::string& name, const std::string& at, bool from_pairs = false) {
    if (!seen_.insert(tier + " " + c.text()).second) {
      if (from_pairs) return;  // rows may meet once defaults are left out
      throw UsageError(path_ + at, "the case " + c.text() + " stands twice");
    }
    if (!tier_selected(tier, tier_)) return;
    c.tier = tier;
    c.name = name;
    cases_.push_back(std::move(c));
  }

  std::string path_;
  const std::string& tier_;
  std::vector<Case>& cases_;
  std::vector<std::string> operators_;
  std::set<std::string> seen_;
};

}  // namespace

Suites load_suites(const std::string& path, const std::string& tier) {
  namespace fs = std::filesystem;
  if (std::find(kTiers.begin(), kTiers.end(), tier) == kTiers.end())
    throw UsageError("--tier", "unknown tier \"" + tier + "\"");
  std::vector<std::string> files;
  std::error_code error;
  if (fs::is_directory(path, error)) {
    for (const auto& entry : fs::directory_iterator(path, error))
      if (entry.path().extension() == ".json") files.push_back(entry.path().string());
    std::sort(files.begin(), files.end());
    if (files.empty()) throw UsageError(path, "holds no suite");
  } else {
    files.push_back(path);
  }
  Suites suites;
  for (const std::string& file : files) suites.sources.emplace_back(file, SuiteReader(file, tier, suites.cases).read());
  return suites;
}

}  // namespace fla::harness
