// Suite files: suites/<operator>.json (anchors-harness.md 5.3), strict.
//
//   { "schema": 1, "operator": "rms_norm",
//     "cases": [
//       { "tier": "smoke", "direction": ["fwd", "bwd"],
//         "product": { "M": [1, 7, 128], "N": [1, 3, 64], "x": ["f32", "bf16"] }, "set": { "fill": "exact" } },
//       { "tier": "bench", "name": "llama3-8b", "direction": "fwd", "zip": { "M": [4096, 16384], "N": [4096, 4096] } },
//       { "tier": "ci", "pairwise": { ... } },
//       { "tier": "regression", "case": "rms_norm.fwd:M=2,N=65536,x=f16" } ] }
//
// "operator" may be a list of siblings: a case then stands for each of them, or for those that it names itself with
// "operator". Values are numbers, strings, booleans, or ranges "2^10..2^16" and "64..1024:64". Tiers nest: smoke, ci, full,
// nightly, each containing the ones before it and (from ci on) regression; exhaustive and bench stand alone.
// Comments are allowed. Everything unknown, empty or duplicate is a UsageError with file and JSON pointer.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "harness/case.h"

namespace fla::harness {

struct Suites {
  std::vector<Case> cases;                                  // of the wanted tier, in file order
  std::vector<std::pair<std::string, std::string>> sources;  // path, content hash (FNV-1a 64, hex)
};

// `path` is a file or a folder of *.json; `tier` one of the names above.
Suites load_suites(const std::string& path, const std::string& tier);

// Narrows cases: globs over case strings ('*', '?'; a leading '-' excludes), and axes "M=1,2" or "M=2^10..2^16"
// that replace that key in every case that has it.
void filter_cases(std::vector<Case>&, const std::vector<std::string>& globs);
void override_axes(std::vector<Case>&, const std::vector<std::string>& axes);

// Expands "2^10..2^16", "64..1024:64", "1,2,3".
std::vector<std::string> expand_values(const std::string& text, const std::string& where);

}  // namespace fla::harness
