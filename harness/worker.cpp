#include "harness/worker.h"

#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <nlohmann/json.hpp>

#include "harness/buffers.h"
#include "harness/replay.h"
#include "harness/worker_process.h"
#include "reports/atomic_file.h"
#include "reports/json.h"

namespace fla::harness {
namespace {

constexpr double kProbeSeconds = 60;

Result outcome(CaseStatus status, const std::string& reason) {
  Result r;
  r.status = status;
  r.reason = reason;
  return r;
}

std::string megabytes(size_t bytes) {
  char text[32];
  std::snprintf(text, sizeof text, "%.1f MiB", static_cast<double>(bytes) / (1 << 20));
  return text;
}

}  // namespace

Device* CaseRunner::device(std::string& why) {
  if (!device_ && device_index_ >= 0) device_ = open_device(device_index_, why);
  return device_.get();
}

Result CaseRunner::check(const Case& c) {
  std::string why;
  if (!device(why)) return outcome(CaseStatus::skipped, why);
  const Problem shapes = make_problem(c, false);
  const size_t workspace = c.direction->workspace_bytes(shapes.args.get());
  const size_t need = static_cast<size_t>(Buffers::bytes_needed(shapes, *device_)) +
                      GuardedMemory::bytes_needed(*device_, workspace, 0);
  const size_t free = device_->free_bytes();
  if (need > free)
    return outcome(CaseStatus::skipped,
                   "does not fit: needs " + megabytes(need) + ", free " + megabytes(free));
  return check_case(c, *device_, options_);
}

Result CaseRunner::dispatch(const std::string& verb, const std::string& subject) {
  if (verb == "check") return check(parse_case(subject));
  if (verb == "prove" || verb == "differentiate")
    return check_reference(parse_case(subject), verb == "differentiate");
  std::string why;
  if (verb == "replay") return judge_replay(subject, device(why));
  return outcome(CaseStatus::failed, "unknown request " + verb);
}

Result CaseRunner::run(const std::string& request) {
  const size_t space = request.find(' ');
  const std::string subject = space == std::string::npos ? "" : request.substr(space + 1);
  try {
    return dispatch(request.substr(0, space), subject);
  } catch (const DeviceLost& lost) {
    return outcome(CaseStatus::crashed, "device lost: " + lost.message);
  } catch (const OutOfMemory& error) {
    return outcome(CaseStatus::out_of_memory,
                   "device memory: needed " + megabytes(error.need) + ", free " + megabytes(error.free));
  } catch (const std::bad_alloc&) {
    return outcome(CaseStatus::out_of_memory, "host memory");
  } catch (const std::exception& error) {
    return outcome(CaseStatus::failed, std::string("the harness: ") + error.what());
  }
}

int serve(int in, int out, const std::function<Result(const std::string&)>& answer) {
  std::string pending;
  for (;;) {
    char block[4096];
    const ssize_t n = ::read(in, block, sizeof block);
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return n < 0 ? kFailed : kPassed;
    pending.append(block, static_cast<size_t>(n));
    for (size_t end = pending.find('\n'); end != std::string::npos; end = pending.find('\n')) {
      const Result result = answer(pending.substr(0, end));
      pending.erase(0, end + 1);
      reports::write_all(out, reports::dump_json(reports::to_json(result)) + "\n", "the supervisor");
      if (result.status == CaseStatus::crashed) return kFailed;
    }
  }
}

int worker_main(int argc, char** argv) {
  const int answers = ::dup(1);
  if (answers < 0 || ::dup2(2, 1) < 0) return kFailed;
  CheckOptions options;
  if (argc > 3) options.repeat = std::atoi(argv[3]);
  CaseRunner runner(argc > 2 ? std::atoi(argv[2]) : 0, options);
  try {
    return serve(0, answers, [&](const std::string& request) { return runner.run(request); });
  } catch (const reports::WriteError&) {
    return kWriteFailed;  // the supervisor is gone
  }
}

DeviceFacts look_for_device() {
  DeviceFacts facts;
  const std::unique_ptr<Device> device = open_device(0, facts.why);
  if (!device) return facts;
  facts.backend = device->backend();
  facts.count = device_count();
  device->describe(facts.run);
  return facts;
}

int probe_main() {
  const int answers = ::dup(1);
  if (answers < 0 || ::dup2(2, 1) < 0) return kFailed;
  const DeviceFacts facts = look_for_device();
  const reports::Json json = {{"backend", facts.backend},
                              {"why", facts.why},
                              {"count", facts.count},
                              {"run", reports::to_json(facts.run)}};
  reports::write_all(answers, reports::dump_json(json) + "\n", "the supervisor");
  return kPassed;
}

DeviceFacts probe_device(const std::string& executable) {
  DeviceFacts facts;
  std::string why;
  const std::string line = first_line_of({executable, "--probe"}, kProbeSeconds, why);
  if (line.empty()) {
    facts.why = "looking for a device failed (" + why + ")";
    return facts;
  }
  const reports::Json json = reports::parse_json(line, "the probe's answer");
  facts.backend = json.value("backend", "");
  facts.why = json.value("why", "");
  facts.count = json.value("count", 0);
  reports::from_json(json.at("run"), facts.run);
  return facts;
}

}  // namespace fla::harness
