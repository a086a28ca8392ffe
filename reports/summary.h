// What a run came to, derived from its record: shared by the console, the Markdown and the HTML page.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "harness/result.h"
#include "reports/peers.h"
#include "reports/text_table.h"

namespace fla::reports {

// Above this share of the measured ceiling a time is not believed: something was skipped or cached.
inline constexpr double kBelievableShare = 1.03;

// One operator and direction on one backend.
struct OperatorSummary {
  std::string name, backend;                           // "rms_norm.fwd", "gpu"
  int cases = 0, passed = 0, failed = 0, not_run = 0;  // not_run: skipped, listed, interrupted
  int checks = 0;
  double worst_bound_used = 0;
  std::string worst_check;  // "y of rms_norm.fwd:M=..."
  double seconds = 0;
  double median_sol = 0;                            // 0: nothing timed
  std::optional<Versus> best_versus, worst_versus;  // over its timed cases
};

// In the order in which they first occur.
std::vector<OperatorSummary> summarise_operators(const harness::RunResult&, const Peers* peers);

std::map<harness::CaseStatus, int> count_statuses(const harness::RunResult&);
std::vector<const harness::Result*> slowest(const harness::RunResult&, size_t count);

double worst_bound_used(const harness::Result&);

// "All 48 cases passed on NVIDIA H200 (gpu); 3 skipped." Names what ran where, so that an emulated run cannot
// be taken for one on a GPU.
std::string verdict_sentence(const harness::RunResult&);
// The run's own warnings and those that its cases give rise to.
std::vector<std::string> warnings_in_words(const harness::RunResult&, const Peers* peers);

std::string operator_name(const harness::Result&);      // "rms_norm.fwd"
std::string shape_text(const harness::Result&);         // "M=16384 N=4096 x=bf16", without fill and seed
bool is_believable(const harness::Result&);             // false above kBelievableShare
std::string versus_text(const std::optional<Versus>&);  // "1.05x liger"; "" without a peer

// The tables that console and Markdown share.
Table operators_table(const harness::RunResult&);
Table times_table(const harness::RunResult&, const Peers* peers);

}  // namespace fla::reports
