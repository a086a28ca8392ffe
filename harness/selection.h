// Which cases a run covers, from the command line: shared by fla-check and fla-bench.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "harness/case.h"

namespace CLI {
class App;
}

namespace fla::harness {

struct Selection {
  std::vector<std::string> cases;          // case strings
  std::vector<std::string> filters, axes;  // as filter_cases and override_axes take them
  std::string suite, tier = "smoke", seed, shard;
};

// Adds [CASE...], --suite, --tier, --filter, --axis, --seed and --shard. The selection outlives the app.
void add_selection_options(CLI::App&, Selection&);

struct SelectedCases {
  std::vector<Case> cases;                                   // no two alike
  std::vector<std::pair<std::string, std::string>> sources;  // suite files and their content hashes
  std::string seed_policy;                                   // "hash of the case", "7", "random: 1234"
};

// Case strings given by name are the selection; without any, or with --suite, the suites' cases of the tier
// are (too). Every case is checked against its signature. Throws UsageError.
SelectedCases select_cases(const Selection&);

// Suite files of this build: beside the sources, or installed beside the program.
std::string default_suites();

// Whether `key` belongs to shard "i/n", i from 1 to n. Stable when cases are added. Throws UsageError.
bool in_shard(const std::string& key, const std::string& shard);

}  // namespace fla::harness
