#include "harness/check_backends.h"

#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <cstring>
#include <filesystem>
#include <set>
#include <sstream>

#include "harness/worker_process.h"

namespace fla::harness {
namespace {

[[noreturn]] void become_emulator(const std::string& reason, char** argv) {
  const auto folder = std::filesystem::path(own_executable()).parent_path();
  const std::string program = (folder / "fla-check-emulator").string();
  std::vector<std::string> arguments{"fla-check", "--fallback-reason", reason};
  for (char** a = argv + 1; *argv && *a; ++a) arguments.push_back(*a);
  std::vector<char*> raw;
  for (std::string& a : arguments) raw.push_back(a.data());
  raw.push_back(nullptr);
  ::execv(program.c_str(), raw.data());
  throw NoDevice(reason + ", and fla-check-emulator cannot be started: " + std::strerror(errno));
}

}  // namespace

Backends choose_backends(const BackendWish& wish, char** argv) {
  Backends chosen;
  chosen.references = wish.backend.empty() || wish.backend == "reference";
  if (wish.backend == "reference" && !wish.require_gpu) return chosen;
  chosen.device = wish.isolate ? probe_device(own_executable()) : look_for_device();
  const std::string& found = chosen.device.backend;
  std::string reason = wish.fallback_reason.empty() ? chosen.device.why : wish.fallback_reason;
  if (found == "emulator" && reason.empty()) reason = "this program was built without CUDA";
  if (found != "gpu" && (wish.require_gpu || wish.backend == "gpu")) throw NoDevice("no GPU: " + reason);
  if (wish.backend == "reference") return chosen;
  if (wish.backend == "emulator") {
    if (found != "emulator") become_emulator("the emulator was asked for", argv);
    chosen.kernels = found;
    return chosen;
  }
  if (found.empty()) become_emulator(reason, argv);
  chosen.kernels = found;
  if (found != "gpu")
    chosen.note = "no GPU: " + reason + "; running kernels on the CPU emulator and the references";
  return chosen;
}

std::vector<int> parse_devices(const std::string& text, int count) {
  std::multiset<int> wanted;
  if (text == "all")
    for (int i = 0; i < count; ++i) wanted.insert(i);
  std::istringstream list(text == "all" ? "" : text);
  for (std::string item; std::getline(list, item, ',');) {
    int index = -1;
    const auto [end, error] = std::from_chars(item.data(), item.data() + item.size(), index);
    if (error != std::errc() || end != item.data() + item.size() || index < 0)
      throw UsageError("--devices", "'" + text + "' is neither 'all' nor a list of indices");
    if (index >= count)
      throw UsageError("--devices", "device " + item + " of " + std::to_string(count) + " (counted from 0)");
    wanted.insert(index);
  }
  if (wanted.empty()) throw UsageError("--devices", "'" + text + "' names no device");
  return {wanted.begin(), wanted.end()};
}

}  // namespace fla::harness
