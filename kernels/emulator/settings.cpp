#include "emulator/settings.h"

#include <charconv>
#include <cstdlib>
#include <map>
#include <mutex>

#include "emulator/launches.h"

namespace fla::detail::emulator {
namespace {

std::string text_of(const std::string& problem, const KernelFault::Place& p) {
  std::string text;
  if (!p.file.empty()) text = p.file + ":" + std::to_string(p.line) + ": ";
  text += problem;
  if (!p.kernel.empty()) text += " [kernel " + p.kernel;
  if (p.block >= 0) text += ", block (" + std::to_string(p.block) + ", " + std::to_string(p.block_y) + ")";
  if (p.thread >= 0)
    text += ", thread (" + std::to_string(p.thread) + ", " + std::to_string(p.thread_y) + ")";
  if (!p.kernel.empty()) text += "]";
  return text;
}

struct Shared {
  std::mutex mutex;
  Settings settings;
  int64_t launches = 0;
  std::vector<LaunchRecord> recorded;
};

Shared& shared() {
  static Shared all;
  return all;
}

Settings exchange_settings(Settings settings) {
  const std::lock_guard lock(shared().mutex);
  std::swap(shared().settings, settings);
  return settings;
}

struct PlannedFault {
  std::string event, action;
  int64_t number = 0;  // 0: every time
};

std::vector<PlannedFault> parse_plan(std::string_view plan) {
  std::vector<PlannedFault> faults;
  while (!plan.empty()) {
    const std::string_view part = plan.substr(0, plan.find(','));
    plan.remove_prefix(part.size() < plan.size() ? part.size() + 1 : part.size());
    const size_t equals = part.find('='), colon = part.substr(0, equals).find(':');
    PlannedFault fault;
    bool good = equals != std::string_view::npos && equals > 0 && equals + 1 < part.size();
    if (good && colon != std::string_view::npos) {
      const char *first = part.data() + colon + 1, *last = part.data() + equals;
      const auto [end, error] = std::from_chars(first, last, fault.number);
      good = colon > 0 && error == std::errc() && end == last && fault.number > 0;
    }
    if (!good)
      throw std::invalid_argument("FLA_FAULT: '" + std::string(part) + "' is not event:number=action");
    fault.event = part.substr(0, colon != std::string_view::npos ? colon : equals);
    fault.action = part.substr(equals + 1);
    faults.push_back(std::move(fault));
  }
  return faults;
}

class FaultPlan {
 public:
  FaultPlan() {
    if (const char* plan = std::getenv("FLA_FAULT")) faults_ = parse_plan(plan);
  }
  void replace(std::vector<PlannedFault> faults) {
    const std::lock_guard lock(mutex_);
    faults_ = std::move(faults);
    seen_.clear();
  }
  std::string at(std::string_view event) {
    const std::lock_guard lock(mutex_);
    if (faults_.empty()) return {};
    const int64_t number = ++seen_[std::string(event)];
    for (const PlannedFault& fault : faults_) {
      if (fault.event != event) continue;
      const bool sticky = event == "launch" && fault.action == "illegal" && number > fault.number;
      if (fault.number == 0 || fault.number == number || sticky) return fault.action;
    }
    return {};
  }

 private:
  std::mutex mutex_;
  std::vector<PlannedFault> faults_;
  std::map<std::string, int64_t> seen_;
};

FaultPlan& fault_plan() {
  static FaultPlan plan;
  return plan;
}

}  // namespace

KernelFault::KernelFault(const std::string& problem, const Place& place)
    : std::runtime_error(text_of(problem, place)), problem_(problem), place_(place) {}

Settings current_settings() {
  const std::lock_guard lock(shared().mutex);
  return shared().settings;
}

UseSettings::UseSettings(Settings settings) : before_(exchange_settings(std::move(settings))) {}
UseSettings::~UseSettings() { exchange_settings(std::move(before_)); }

Settings note_launch(const LaunchRecord& launch) {
  const std::lock_guard lock(shared().mutex);
  ++shared().launches;
  if (shared().settings.record_launches) shared().recorded.push_back(launch);
  return shared().settings;
}

int64_t launch_count() {
  const std::lock_guard lock(shared().mutex);
  return shared().launches;
}

std::vector<LaunchRecord> recorded_launches() {
  const std::lock_guard lock(shared().mutex);
  return shared().recorded;
}

void forget_launches() {
  const std::lock_guard lock(shared().mutex);
  shared().recorded.clear();
}

void inject_faults(std::string_view plan) { fault_plan().replace(parse_plan(plan)); }
std::string fault_at(std::string_view event) { return fault_plan().at(event); }

}  // namespace fla::detail::emulator
