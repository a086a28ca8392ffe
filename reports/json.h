// The result record as JSON and back; the document is described in schema.md.
#pragma once

#include <nlohmann/json_fwd.hpp>
#include <stdexcept>
#include <string>
#include <string_view>

#include "harness/result.h"

namespace fla::reports {

using Json = nlohmann::ordered_json;

inline constexpr const char* kResultSchema = "fla.results/1";

// A file that is not what it should be: malformed JSON, a wrong type, an unknown major version. The message
// names the place ("/cases/3/status"). The CLIs print it and exit with kUsage.
struct FormatError : std::runtime_error {
  using std::runtime_error::runtime_error;
};

Json to_json(const harness::Check&);
Json to_json(const harness::Timing&);
Json to_json(const harness::Metrics&);
Json to_json(const harness::Memory&);
Json to_json(const harness::Power&);
Json to_json(const harness::Result&);
Json to_json(const harness::Calibration&);
Json to_json(const harness::RunInfo&);
Json to_json(const harness::RunResult&);

// Fields the document lacks keep their value, unknown fields are ignored, wrong types throw FormatError.
void from_json(const Json&, harness::Check&);
void from_json(const Json&, harness::Timing&);
void from_json(const Json&, harness::Metrics&);
void from_json(const Json&, harness::Memory&);
void from_json(const Json&, harness::Power&);
void from_json(const Json&, harness::Result&);
void from_json(const Json&, harness::Calibration&);
void from_json(const Json&, harness::RunInfo&);
void from_json(const Json&, harness::RunResult&);

// Throws FormatError unless `schema` is of the major version this code writes.
void require_schema(const Json& document);

// Parses any JSON text; throws FormatError with `where` for malformed text or more than 64 levels of nesting.
Json parse_json(std::string_view text, const std::string& where);
// On one line; bytes that are not UTF-8 become U+FFFD.
std::string dump_json(const Json&);

// The whole result file, one line per case so that versions of it can be compared as text.
std::string write_results(const harness::RunResult&);
harness::RunResult read_results(std::string_view text, const std::string& where);
// From a file. Throws FormatError, also when it cannot be read.
harness::RunResult load_results(const std::string& path);

// The contents of a file; throws FormatError when it cannot be read.
std::string load_text(const std::string& path);

}  // namespace fla::reports
