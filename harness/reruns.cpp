#include "harness/reruns.h"

#include "harness/judge.h"
#include "harness/verdict.h"

namespace fla::harness {
namespace {

std::string refusal(const Status& status) {
  return status.ok() ? "" : std::string("refused: ") + status.text;
}

// The same case with other numbers: shapes, dtypes and layouts are those of the original.
Problem with_other_contents(const Problem& problem) {
  Case other = problem.origin;
  const std::string seed = std::to_string(problem.origin.seed() / 2 + 1);
  bool found = false;
  for (auto& [key, value] : other.values) {
    if (key != "seed") continue;
    value = seed;
    found = true;
  }
  if (!found) other.values.emplace_back("seed", seed);
  return make_problem(other);
}

}  // namespace

Check check_poison(Trial& trial, const Snapshot& first) {
  const Snapshot second = trial.run(Poison::large);
  const std::string where = difference(trial.problem, first, second);
  if (where.empty()) return verdict("poison", "");
  return verdict("poison", where + ": depends on what memory held before the call, or was never written");
}

Check check_repeat(Trial& trial, const Snapshot& first, int times) {
  for (int i = 0; i < times; ++i) {
    const std::string where =
        difference(trial.problem, first, trial.run(i % 2 ? Poison::large : Poison::nan));
    if (!where.empty()) return verdict("repeat", where + " in run " + std::to_string(i + 2));
  }
  return verdict("repeat", "");
}

// That the exact size suffices is shown by every other run and its guards.
Check check_workspace(Trial& trial) {
  const size_t bytes = trial.workspace_bytes();
  if (bytes == 0) return verdict("workspace", "");
  trial.prepare(Poison::nan);
  const Status status = trial.launch(trial.buffers.args(), bytes - 1, trial.device.stream(0));
  trial.device.synchronize();
  if (status.code != StatusCode::workspace_too_small)
    return verdict("workspace",
                   "one byte less than workspace_bytes() gave " + std::string(name_of(status.code)));
  std::string written = trial.buffers.written_output();
  return verdict("workspace", written.empty() ? "" : "refused for its workspace, yet " + written);
}

Check check_determinism(Trial& trial, const Snapshot& first) {
  Check check = verdict("determinism", "");
  Status status;
  trial.prepare(Poison::nan);
  trial.device.rerun_variants([&](Stream stream) { status = trial.launch(stream); },
                              [&](const std::string& variant) {
                                trial.device.synchronize();
                                std::string where = refusal(status);
                                if (where.empty())
                                  where = difference(trial.problem, first, trial.buffers.read());
                                ++check.elements;
                                if (!where.empty() && ++check.outside == 1)
                                  check.detail = variant + ": " + where;
                                trial.prepare(check.elements % 2 ? Poison::large : Poison::nan);
                              });
  if (check.outside > 0) check.status = CaseStatus::failed;
  return check;
}

Check check_asynchrony(Trial& trial, const Snapshot& first) {
  trial.prepare(Poison::nan);
  Status status;
  const bool returned = trial.device.returns_while_blocked(
      1, [&](Stream stream) { status = trial.launch(stream); },
      [&] { return trial.buffers.written_output().empty(); });
  trial.device.synchronize();
  if (!status.ok()) return verdict("asynchrony", refusal(status));
  if (!returned)
    return verdict("asynchrony", "waited for the device, or worked on another stream than the caller's");
  return verdict("asynchrony", difference(trial.problem, first, trial.buffers.read()));
}

Check check_graph(Trial& trial, const Snapshot& first) {
  const Problem other = with_other_contents(trial.problem);
  const Snapshot changed = trial.run(Poison::nan, other);
  // A kernel that keeps something of its first call agrees with itself in every replay.
  std::vector<Check> numbers;
  judge(sampled(other), changed, numbers);
  for (const Check& c : numbers)
    if (c.status == CaseStatus::failed)
      return verdict("graph", "with other numbers, " + c.name + ": " + c.detail);

  const Problem* contents[] = {&trial.problem, &other, &trial.problem};
  const Snapshot* expected[] = {&first, &changed, &first};

  Status status;
  std::string where;
  const auto compare_replay = [&](int replay) {
    trial.device.synchronize();
    const std::string found = difference(trial.problem, *expected[replay], trial.buffers.read());
    if (where.empty() && !found.empty()) where = "replay " + std::to_string(replay + 1) + ": " + found;
  };
  trial.device.capture_and_replay([&](Stream stream) { status = trial.launch(stream); }, 3,
                                  [&](int replay) {
                                    if (replay > 0) compare_replay(replay - 1);
                                    trial.prepare(replay % 2 ? Poison::large : Poison::nan,
                                                  *contents[replay]);
                                  });
  if (!status.ok()) return verdict("graph", "while captured, " + refusal(status));
  compare_replay(2);
  return verdict("graph", where);
}

}  // namespace fla::harness
