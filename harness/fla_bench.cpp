// fla-bench: how fast, how much memory, how far from the limit? Options in, exit code out.
#include <csignal>
#include <cstdio>
#include <optional>

#include "harness/bench.h"
#include "harness/command_line.h"
#include "harness/device_lock.h"
#include "harness/run_info.h"
#include "harness/selection.h"
#include "reports/atomic_file.h"
#include "reports/compare.h"
#include "reports/console.h"
#include "reports/csv.h"
#include "reports/escape.h"
#include "reports/html.h"
#include "reports/journal.h"
#include "reports/json.h"
#include "reports/markdown.h"
#include "reports/speed_table.h"

namespace fla::harness {
namespace {

volatile std::sig_atomic_t interrupted = 0;

struct Outputs {
  std::string out, html, csv, markdown, peers;
};

struct Options {
  Selection selection;
  BenchOptions bench;
  Outputs outputs;
  bool list = false, cold_only = false, hot_only = false, require_gpu = false, quiet = false;
  int device = 0;
};

struct CompareArguments {
  std::string before, after, markdown;
  reports::CompareOptions options;
};

struct ReportArguments {
  std::vector<std::string> results;
  std::string table, name = "h200";
  bool check = false;
  Outputs outputs;
};

void add_outputs(CLI::App& app, Outputs& o) {
  app.add_option("--csv", o.csv, "Write the cases as CSV");
  app.add_option("--markdown", o.markdown, "Write a Markdown report");
  app.add_option("--peers", o.peers, "Measured times of other libraries, set beside ours");
}

void write_outputs(const std::vector<RunResult>& runs, const Outputs& o, const reports::Peers* peers) {
  if (!o.html.empty()) reports::write_file(o.html, reports::html_page(runs, peers));
  std::string csv, markdown;
  for (const RunResult& run : runs) {
    csv += reports::csv_table(run, peers);
    markdown += reports::markdown_report(run, peers);
  }
  if (!o.csv.empty()) reports::write_file(o.csv, csv);
  if (!o.markdown.empty()) reports::write_file(o.markdown, markdown);
}

std::unique_ptr<reports::Peers> load_peers(const std::string& path) {
  if (path.empty()) return nullptr;
  return std::make_unique<reports::Peers>(reports::load_peers(path));
}

int run_bench(Options& o, int argc, char** argv) {
  const SelectedCases selected = select_cases(o.selection);
  if (o.list) {
    for (const Case& c : selected.cases) std::printf("%s\n", c.text().c_str());
    return selected.cases.empty() ? kNothingRan : kPassed;
  }
  const auto peers = load_peers(o.outputs.peers);
  RunResult all;
  all.run = start_run("fla-bench", argc, argv);
  all.run.suites = selected.sources;
  all.run.seed_policy = selected.seed_policy;
  all.run.shard = o.selection.shard;

  std::string why;
  std::unique_ptr<Timer> timer = open_timer();
  std::optional<DeviceLock> lock;
  if (timer) lock.emplace(lock_device("fla-bench", o.device, DeviceUse::alone));
  std::unique_ptr<Device> device = timer ? open_device(o.device, why) : nullptr;
  if (device) {
    device->describe(all.run);
    all.run.calibration = calibrate(*timer, all.run);
  } else {
    if (why.empty()) why = "no CUDA device was found, or this build has no CUDA";
    if (o.require_gpu) {
      std::fprintf(stderr, "fla-bench: %s\n", why.c_str());
      return kNothingRan;
    }
    all.run.device_name = "cpu";
    all.run.warnings.push_back("no GPU (" + why + "): what is timed here are the references on the CPU");
    std::fprintf(stderr, "fla-bench: %s\n", all.run.warnings.back().c_str());
  }

  std::unique_ptr<reports::Journal> journal;
  const bool to_file = !o.outputs.out.empty() && o.outputs.out != "-";
  if (to_file) journal = std::make_unique<reports::Journal>(reports::journal_path(o.outputs.out), all.run);
  std::signal(SIGINT, [](int) { interrupted = 1; });
  std::signal(SIGTERM, [](int) { interrupted = 1; });
  for (const Case& c : selected.cases) {
    if (interrupted) break;
    Result r;
    try {
      r = device ? bench_case(c, *device, *timer, all.run, o.bench) : bench_reference(c, o.bench);
    } catch (const DeviceLost& e) {
      // Sticky: nothing more can be measured in this process.
      r.key = c.key();
      r.case_text = c.text();
      r.op = c.direction->op;
      r.direction = c.direction->name;
      r.backend = "gpu";
      r.status = CaseStatus::crashed;
      r.reason = e.message;
      interrupted = 2;
    }
    r.repro = "fla-bench " + r.case_text;
    if (r.status == CaseStatus::failed && !o.quiet) std::fputs(reports::failure_text(r, reports::wants_colour(2)).c_str(), stderr);
    if (journal) journal->add(r);
    all.cases.push_back(std::move(r));
  }
  all.run.finished = utc_now();
  bool failed = false, ran = false;
  for (const Result& r : all.cases) {
    failed |= is_failure(r.status);
    ran |= r.timed || is_failure(r.status);
  }
  all.exit_code = interrupted == 1 ? kInterrupted : failed ? kFailed : ran ? kPassed : kNothingRan;
  if (o.outputs.out == "-") std::fputs(reports::write_results(all).c_str(), stdout);
  else if (!o.quiet) std::fputs(reports::bench_report(all, peers.get(), reports::wants_colour(1)).c_str(), stdout);
  if (to_file) {
    reports::write_file(o.outputs.out, reports::write_results(all));
    if (all.exit_code != kInterrupted) std::remove(journal->path().c_str());
  }
  write_outputs({all}, o.outputs, peers.get());
  return all.exit_code;
}

int run_compare(const CompareArguments& a) {
  const reports::Comparison c = reports::compare(reports::load_results(a.before), reports::load_results(a.after), a.options);
  std::fputs(reports::compare_report(c, reports::wants_colour(1)).c_str(), stdout);
  if (!a.markdown.empty()) reports::write_file(a.markdown, reports::comparison_markdown(c));
  return c.refused ? kUsage : c.regression ? kRegression : kPassed;
}

int run_report(const ReportArguments& a) {
  std::vector<RunResult> runs;
  for (const std::string& path : a.results) runs.push_back(reports::load_results(path));
  const auto peers = load_peers(a.outputs.peers);
  write_outputs(runs, a.outputs, peers.get());
  if (a.table.empty()) return kPassed;
  const std::string old = reports::load_text(a.table);
  const std::string updated = reports::with_block(old, a.name, reports::speed_table(runs, peers.get()));
  if (!a.check) {
    reports::write_file(a.table, updated);
  } else if (updated != old) {
    std::fprintf(stderr, "fla-bench: the table of %s is not that of these results; run this without --check\n",
                 reports::one_line(a.table).c_str());
    return kFailed;
  }
  return kPassed;
}

int bench_main(int argc, char** argv) {
  CLI::App app("Times the kernels of fla against a copy of the same bytes, and accounts for their memory.", "fla-bench");
  Options o;
  o.selection.tier = "bench";
  add_selection_options(app, o.selection);
  add_outputs(app, o.outputs);
  app.add_option("--out", o.outputs.out, "Results as JSON; - for standard output");
  app.add_option("--html", o.outputs.html, "Results as a page");
  app.add_option("--time-limit", o.bench.sampling.time_limit_s, "Seconds per case, cache state and round")->check(CLI::Range(0.01, 100.0));
  app.add_option("--noise", o.bench.sampling.noise, "Sampling stops at this uncertainty of the median")->check(CLI::Range(0.0001, 1.0));
  app.add_option("--rounds", o.bench.sampling.rounds, "Turns between ours and the copy")->check(CLI::Range(1, 100));
  app.add_option("--device", o.device, "Index of the GPU")->check(CLI::NonNegativeNumber);
  app.add_flag("--cold", o.cold_only, "Only with a cold cache");
  app.add_flag("--hot,--warm", o.hot_only, "Only with the data in the cache");
  app.add_flag("--prove-large", o.bench.prove_large, "Prove also what takes minutes: weights of more than 2^25 elements");
  app.add_flag("--unproven", o.bench.unproven, "Time without checking first");
  app.add_flag("--require-gpu", o.require_gpu, "Exit 3 without a GPU");
  app.add_flag("--list", o.list, "Print the selected cases");
  app.add_flag("-q,--quiet", o.quiet, "Print nothing but errors");
  CompareArguments compare;
  CLI::App* compare_app = app.add_subcommand("compare", "Is anything worse than before? Exit 4 if so");
  compare_app->add_option("OLD", compare.before)->required();
  compare_app->add_option("NEW", compare.after)->required();
  compare_app->add_option("--threshold", compare.options.threshold, "Share by which a time may grow")->check(CLI::Range(0.0, 10.0));
  compare_app->add_flag("--allow-missing", compare.options.allow_missing);
  compare_app->add_flag("--force", compare.options.force, "Compare runs of different devices or builds");
  compare_app->add_option("--markdown", compare.markdown);
  ReportArguments report;
  CLI::App* report_app = app.add_subcommand("report", "One page of one or more result files");
  report_app->add_option("RESULT", report.results)->required();
  report_app->add_option("-o,--html", report.outputs.html, "The page");
  report_app->add_option("--table", report.table, "Replace the table of times between two comments of this Markdown file");
  report_app->add_option("--table-name", report.name, "The comments are <!-- NAME:begin --> and <!-- NAME:end -->")
      ->capture_default_str();
  report_app->add_flag("--check", report.check, "Write no table; exit 1 where it would change");
  add_outputs(*report_app, report.outputs);
  return run_command_line(app, argc, argv, [&] {
    o.bench.cold = !o.hot_only;
    o.bench.hot = !o.cold_only;
    if (*compare_app) return run_compare(compare);
    if (*report_app) return run_report(report);
    return run_bench(o, argc, argv);
  });
}

}  // namespace
}  // namespace fla::harness

int main(int argc, char** argv) { return fla::harness::bench_main(argc, argv); }
