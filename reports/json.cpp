#include "reports/json.h"

#include <cerrno>
#include <charconv>
#include <cmath>
#include <cstring>
#include <fstream>
#include <limits>
#include <map>
#include <nlohmann/json.hpp>

#include "reports/json_fields.h"

namespace fla::reports {

using harness::CaseStatus;
using Pairs = std::vector<std::pair<std::string, std::string>>;

constexpr int kLastStatus = static_cast<int>(CaseStatus::interrupted);
constexpr int kDepthLimit = 64;

class Writer {
 public:
  template <class T>
  void operator()(const char* name, const T& value) {
    object_[name] = encode(value);
  }

  template <class T>
  void sparse(const char* name, const T& value) {
    Json encoded = encode(value);
    if (encoded != encode(T{})) object_[name] = std::move(encoded);
  }

  template <class Fields>
  void group(const char* name, Fields&& list) {
    Writer inner;
    list(inner);
    if (!inner.object_.empty()) object_[name] = std::move(inner.object_);
  }

  void object(const char* name, const Pairs& pairs) {
    Json inner = Json::object();
    for (const auto& [key, value] : pairs) inner[key] = value;
    object_[name] = std::move(inner);
  }

  void records(const char* name, const Pairs& pairs, const char* first, const char* second) {
    Json list = Json::array();
    for (const auto& [a, b] : pairs) list.push_back(Json{{first, a}, {second, b}});
    object_[name] = std::move(list);
  }

  Json take() { return std::move(object_); }

  template <class T>
  static Json encode(const T& value) {
    Writer inner;
    fields(inner, value);
    return inner.take();
  }
  static Json encode(bool value) { return value; }
  static Json encode(int value) { return value; }
  static Json encode(int64_t value) { return value; }
  static Json encode(const std::string& value) { return value; }
  static Json encode(CaseStatus value) { return harness::name_of(value); }
  static Json encode(double value) {
    if (std::isnan(value)) return "nan";
    if (std::isinf(value)) return value > 0 ? "inf" : "-inf";
    return value;
  }
  static Json encode(const std::pair<double, double>& value) {
    return Json::array({encode(value.first), encode(value.second)});
  }
  template <class T>
  static Json encode(const std::vector<T>& values) {
    Json list = Json::array();
    for (const T& value : values) list.push_back(encode(value));
    return list;
  }

 private:
  Json object_ = Json::object();
};

[[noreturn]] static void fail(const std::string& where, const std::string& message) {
  throw FormatError(where + ": " + message);
}

class Reader {
 public:
  Reader(const Json& object, std::string where) : object_(object), where_(std::move(where)) {
    if (!object.is_object()) fail(where_, "expected an object");
  }

  template <class T>
  void operator()(const char* name, T& value) const {
    if (const Json* found = find(name)) decode(*found, value, where_ + "/" + name);
  }
  template <class T>
  void sparse(const char* name, T& value) const {
    (*this)(name, value);
  }

  template <class Fields>
  void group(const char* name, Fields&& list) const {
    const Json* found = find(name);
    if (!found) return;
    Reader inner(*found, where_ + "/" + name);
    list(inner);
  }

  void object(const char* name, Pairs& pairs) const {
    const Json* found = find(name);
    if (!found) return;
    const std::string where = where_ + "/" + name;
    if (!found->is_object()) fail(where, "expected an object");
    pairs.clear();
    for (const auto& [key, value] : found->items()) {
      pairs.emplace_back(key, "");
      decode(value, pairs.back().second, where + "/" + key);
    }
  }

  void records(const char* name, Pairs& pairs, const char* first, const char* second) const {
    const Json* found = find(name);
    if (!found) return;
    const std::string where = where_ + "/" + name;
    if (!found->is_array()) fail(where, "expected a list");
    pairs.clear();
    for (const Json& entry : *found) {
      const Reader inner(entry, where + "/" + std::to_string(pairs.size()));
      pairs.emplace_back();
      inner(first, pairs.back().first);
      inner(second, pairs.back().second);
    }
  }

  template <class T>
  static void decode(const Json& json, T& value, const std::string& where) {
    Reader inner(json, where);
    fields(inner, value);
  }
  static void decode(const Json& json, bool& value, const std::string& where) {
    if (!json.is_boolean()) fail(where, "expected true or false");
    value = json.get<bool>();
  }
  static void decode(const Json& json, int64_t& value, const std::string& where) {
    if (!json.is_number_integer()) fail(where, "expected an integer");
    if (json.is_number_unsigned() && json.get<uint64_t>() > uint64_t{std::numeric_limits<int64_t>::max()}) {
      fail(where, "integer out of range");
    }
    value = json.get<int64_t>();
  }
  static void decode(const Json& json, int& value, const std::string& where) {
    int64_t wide = 0;
    decode(json, wide, where);
    if (wide < std::numeric_limits<int>::min() || wide > std::numeric_limits<int>::max()) {
      fail(where, "integer out of range");
    }
    value = static_cast<int>(wide);
  }
  static void decode(const Json& json, double& value, const std::string& where) {
    if (json.is_number()) {
      value = json.get<double>();
      return;
    }
    const std::string text = json.is_string() ? json.get<std::string>() : "";
    if (text == "nan") value = std::numeric_limits<double>::quiet_NaN();
    else if (text == "inf") value = std::numeric_limits<double>::infinity();
    else if (text == "-inf") value = -std::numeric_limits<double>::infinity();
    else fail(where, "expected a number");
  }
  static void decode(const Json& json, std::string& value, const std::string& where) {
    if (!json.is_string()) fail(where, "expected a string");
    value = json.get<std::string>();
  }
  static void decode(const Json& json, CaseStatus& value, const std::string& where) {
    std::string name;
    decode(json, name, where);
    for (int i = 0; i <= kLastStatus; ++i) {
      value = static_cast<CaseStatus>(i);
      if (name == harness::name_of(value)) return;
    }
    fail(where, "unknown status");
  }
  static void decode(const Json& json, std::pair<double, double>& value, const std::string& where) {
    if (!json.is_array() || json.size() != 2) fail(where, "expected two numbers");
    decode(json[0], value.first, where + "/0");
    decode(json[1], value.second, where + "/1");
  }
  template <class T>
  static void decode(const Json& json, std::vector<T>& values, const std::string& where) {
    if (!json.is_array()) fail(where, "expected a list");
    values.clear();
    values.reserve(json.size());
    for (const Json& entry : json) {
      T value{};
      decode(entry, value, where + "/" + std::to_string(values.size()));
      values.push_back(std::move(value));
    }
  }

 private:
  const Json* find(const char* name) const {
    const auto it = object_.find(name);
    return it == object_.end() ? nullptr : &*it;
  }

  const Json& object_;
  std::string where_;
};

Json to_json(const harness::Check& r) { return Writer::encode(r); }
Json to_json(const harness::Timing& r) { return Writer::encode(r); }
Json to_json(const harness::Metrics& r) { return Writer::encode(r); }
Json to_json(const harness::Memory& r) { return Writer::encode(r); }
Json to_json(const harness::Power& r) { return Writer::encode(r); }
Json to_json(const harness::Result& r) { return Writer::encode(r); }
Json to_json(const harness::Calibration& r) { return Writer::encode(r); }
Json to_json(const harness::RunInfo& r) { return Writer::encode(r); }

void from_json(const Json& json, harness::Check& r) { Reader::decode(json, r, ""); }
void from_json(const Json& json, harness::Timing& r) { Reader::decode(json, r, ""); }
void from_json(const Json& json, harness::Metrics& r) { Reader::decode(json, r, ""); }
void from_json(const Json& json, harness::Memory& r) { Reader::decode(json, r, ""); }
void from_json(const Json& json, harness::Power& r) { Reader::decode(json, r, ""); }
void from_json(const Json& json, harness::Result& r) { Reader::decode(json, r, ""); }
void from_json(const Json& json, harness::Calibration& r) { Reader::decode(json, r, ""); }
void from_json(const Json& json, harness::RunInfo& r) { Reader::decode(json, r, ""); }

static Json summary_of(const harness::RunResult& result) {
  std::map<CaseStatus, int64_t> counts;
  for (const harness::Result& r : result.cases) ++counts[r.status];
  Json by_status = Json::object();
  for (const auto& [status, count] : counts) by_status[harness::name_of(status)] = count;
  return Json{{"counts", std::move(by_status)}, {"exit_code", result.exit_code}};
}

Json to_json(const harness::RunResult& result) {
  Json document;
  document["schema"] = kResultSchema;
  document["run"] = to_json(result.run);
  document["cases"] = Writer::encode(result.cases);
  document["summary"] = summary_of(result);
  return document;
}

void from_json(const Json& document, harness::RunResult& result) {
  require_schema(document);
  const Reader reader(document, "");
  reader("run", result.run);
  reader("cases", result.cases);
  reader.group("summary", [&](auto& summary) { summary("exit_code", result.exit_code); });
}

void require_schema(const Json& document) {
  static constexpr std::string_view kFamily = "fla.results/";
  std::string schema;
  Reader(document, "")("schema", schema);
  if (!schema.starts_with(kFamily)) fail("/schema", "not a result file of this project");
  int major = 0;
  const char* end = schema.data() + schema.size();
  const auto [rest, error] = std::from_chars(schema.data() + kFamily.size(), end, major);
  if (error != std::errc{} || (rest != end && *rest != '.')) fail("/schema", "malformed version");
  if (major != 1) fail("/schema", "version " + std::to_string(major) + " is not known here (1 is)");
}

Json parse_json(std::string_view text, const std::string& where) {
  const auto limit_depth = [&](int depth, Json::parse_event_t, Json&) {
    if (depth > kDepthLimit) fail(where, "nested more than 64 levels deep");
    return true;
  };
  try {
    return Json::parse(text.begin(), text.end(), limit_depth);
  } catch (const Json::exception& e) {
    fail(where, e.what());
  }
}

std::string dump_json(const Json& json) { return json.dump(-1, ' ', false, Json::error_handler_t::replace); }

std::string write_results(const harness::RunResult& result) {
  std::string text = "{\"schema\":\"" + std::string(kResultSchema) + "\",\n\"run\":";
  text += dump_json(to_json(result.run)) + ",\n\"cases\":[";
  const char* separator = "\n";
  for (const harness::Result& r : result.cases) {
    text += separator + dump_json(to_json(r));
    separator = ",\n";
  }
  return text + "\n],\n\"summary\":" + dump_json(summary_of(result)) + "}\n";
}

harness::RunResult read_results(std::string_view text, const std::string& where) {
  const Json document = parse_json(text, where);
  harness::RunResult result;
  try {
    from_json(document, result);
  } catch (const FormatError& e) {
    fail(where, e.what());
  }
  return result;
}

std::string load_text(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::string text, chunk(1 << 16, '\0');
  while (file) {
    file.read(chunk.data(), static_cast<std::streamsize>(chunk.size()));
    text.append(chunk, 0, static_cast<size_t>(file.gcount()));
  }
  if (!file.eof()) fail(path, std::string("cannot be read: ") + std::strerror(errno));
  return text;
}

harness::RunResult load_results(const std::string& path) { return read_results(load_text(path), path); }

}  // namespace fla::reports
