// fla-check: is it right? Options in, exit code out.
#include <cstdio>
#include <cstring>

#include "harness/check_run.h"
#include "harness/command_line.h"
#include "harness/problem.h"
#include "harness/replay.h"
#include "harness/self_test.h"
#include "harness/worker.h"
#include "reports/atomic_file.h"
#include "reports/escape.h"
#include "reports/json.h"

namespace fla::harness {
namespace {

struct Options {
  CheckRunOptions run;
  std::string dump;
  bool list = false, list_ops = false, dry_run = false, self_test = false, no_isolate = false;
};

void add_options(CLI::App& app, Options& o) {
  CheckRunOptions& run = o.run;
  add_selection_options(app, run.selection);
  app.add_option(
         "--backend", run.backend.backend,
         "gpu, emulator or reference (default: kernels on the GPU, else on the emulator; and the references)")
      ->check(CLI::IsMember({"gpu", "emulator", "reference"}));
  app.add_option("--devices", run.devices, "GPUs to use: all, or indices such as 0,2; 0,0 gives one GPU two workers")->capture_default_str();
  app.add_option("-j,--workers", run.workers, "Workers for emulator and references (default: one per core)")
      ->check(CLI::Range(1, 1024));
  app.add_option("--repeat", run.repeat, "Runs of each kernel, which must agree in every bit")
      ->check(CLI::Range(1, 1000000))
      ->capture_default_str();
  app.add_option("--timeout", run.timeout_s, "Seconds that a case may take")
      ->check(CLI::Range(0.01, 1e6))
      ->capture_default_str();
  app.add_flag("--no-isolate", o.no_isolate, "Run everything in this process, for debuggers");
  app.add_flag("--require-gpu", run.backend.require_gpu, "Exit 3 without a GPU");
  app.add_flag("--allow-empty", run.demand.allow_empty, "Exit 0 even if nothing ran");
  app.add_option("--min-cases", run.demand.min_cases, "Exit 3 if fewer cases ran")
      ->check(CLI::NonNegativeNumber);
  app.add_option("--out", run.out, "Results as JSON; - for standard output");
  app.add_option("--junit", run.junit, "Results as JUnit XML");
  app.add_option("--html", run.html, "Results as a page");
  app.add_option("--resume", run.resume, "Go on with an interrupted run: its NAME.partial.jsonl");
  app.add_option("--replay", run.replay, "Judge the tensors of a safetensors file");
  app.add_option("--dump", o.dump, "Write the one selected case as such a file");
  app.add_flag("--list", o.list, "Print the selected cases");
  app.add_flag("--list-ops", o.list_ops, "Print the operators and their directions");
  app.add_flag("--dry-run", o.dry_run, "Print the selected cases and their memory");
  app.add_flag("--self-test", o.self_test, "Plant faults and show that they are caught");
  app.add_flag("-v,--verbose", run.verbose, "A line per case on standard error");
  app.add_flag("-q,--quiet", run.quiet, "Only failures and the verdict");
  app.add_option("--fallback-reason", run.backend.fallback_reason)
      ->group("");  // from fla-check to the emulator's
}

int list_operators() {
  for (const Direction& d : all_directions()) std::printf("%s\n", d.key().c_str());
  return all_directions().empty() ? kNothingRan : kPassed;
}

int list_cases(const Options& o) {
  const SelectedCases selected = select_cases(o.run.selection);
  for (const Case& c : selected.cases) {
    if (!o.dry_run) std::printf("%s\n", c.text().c_str());
    else
      std::printf("%12lld bytes  %s\n", static_cast<long long>(make_problem(c, false).bytes),
                  c.text().c_str());
  }
  return selected.cases.empty() && !o.run.demand.allow_empty ? kNothingRan : kPassed;
}

int dump(const Options& o) {
  const SelectedCases selected = select_cases(o.run.selection);
  if (selected.cases.size() != 1)
    throw UsageError("--dump", "takes one case, " + std::to_string(selected.cases.size()) + " are selected");
  dump_case(selected.cases.front(), o.dump);
  return kPassed;
}

int perform(Options& o, int argc, char** argv) {
  o.run.backend.isolate = !o.no_isolate;
  if (o.self_test) return run_self_test(o.run.verbose);
  if (o.list_ops) return list_operators();
  if (o.list || o.dry_run) return list_cases(o);
  if (!o.dump.empty()) return dump(o);
  return run_check(o.run, argc, argv);
}

int check_main(int argc, char** argv) {
  CLI::App app("Checks the kernels of fla against their references, and the references against themselves.",
               "fla-check");
  Options options;
  add_options(app, options);
  return run_command_line(app, argc, argv, [&] { return perform(options, argc, argv); });
}

}  // namespace
}  // namespace fla::harness

int main(int argc, char** argv) {
  using namespace fla::harness;
  if (argc > 1 && std::strcmp(argv[1], "--worker") == 0) return worker_main(argc, argv);
  if (argc > 1 && std::strcmp(argv[1], "--probe") == 0) return probe_main();
  return check_main(argc, argv);
}
