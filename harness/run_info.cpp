#include "harness/run_info.h"

#include <ctime>
#include <fstream>
#include <random>

// Set by the build; a build that does not say is still a build.
#ifndef FLA_VERSION
#define FLA_VERSION "0.0.0"
#endif
#ifndef FLA_GIT_SHA
#define FLA_GIT_SHA ""
#endif
#ifndef FLA_GIT_DIRTY
#define FLA_GIT_DIRTY 0
#endif
#ifndef FLA_BUILD_TYPE
#define FLA_BUILD_TYPE ""
#endif
#ifndef FLA_COMPILER
#define FLA_COMPILER __VERSION__
#endif
#ifndef FLA_FLAGS
#define FLA_FLAGS ""
#endif
#ifndef FLA_CUDA_VERSION
#define FLA_CUDA_VERSION ""
#endif
#ifndef FLA_ARCHITECTURES
#define FLA_ARCHITECTURES ""
#endif

namespace fla::harness {
namespace {

std::string value_after(const std::string& line, char separator) {
  size_t start = line.find(separator);
  if (start == std::string::npos) return {};
  start = line.find_first_not_of(" \t\"", start + 1);
  if (start == std::string::npos) return {};
  const size_t end = line.find_last_not_of(" \t\"\r");
  return line.substr(start, end + 1 - start);
}

std::string first_value(const char* file, const std::string& key, char separator) {
  std::ifstream in(file);
  for (std::string line; std::getline(in, line);)
    if (line.rfind(key, 0) == 0) return value_after(line, separator);
  return {};
}

// "--out=/home/ann/x.json" -> "--out=x.json"
std::string without_folders(const std::string& argument) {
  const size_t equals = argument.rfind("--", 0) == 0 ? argument.find('=') : std::string::npos;
  const size_t value = equals == std::string::npos ? 0 : equals + 1;
  if (value >= argument.size() || argument[value] != '/') return argument;
  return argument.substr(0, value) + argument.substr(argument.rfind('/') + 1);
}

std::string random_id() {
  std::random_device random;
  char text[24];
  std::snprintf(text, sizeof text, "%08x%08x", random(), random());
  return text;
}

}  // namespace

std::string utc_now() {
  const std::time_t now = std::time(nullptr);
  std::tm utc{};
  gmtime_r(&now, &utc);
  char text[32];
  std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &utc);
  return text;
}

RunInfo start_run(const std::string& tool, int argc, char** argv) {
  RunInfo run;
  run.id = random_id();
  run.started = utc_now();
  run.tool = tool;
  run.version = FLA_VERSION;
  run.git_sha = FLA_GIT_SHA;
  run.git_dirty = FLA_GIT_DIRTY;
  run.argv.push_back(tool);
  for (int i = 1; i < argc; ++i) run.argv.push_back(without_folders(argv[i]));
  run.build_type = FLA_BUILD_TYPE;
  run.compiler = FLA_COMPILER;
  run.cuda = FLA_CUDA_VERSION;
  run.flags = FLA_FLAGS;
  run.architectures = FLA_ARCHITECTURES;
  run.device_name = "cpu";
  run.cpu = first_value("/proc/cpuinfo", "model name", ':');
  run.os = first_value("/etc/os-release", "PRETTY_NAME=", '=');
  return run;
}

void set_device(RunInfo& run, const RunInfo& device) {
  run.device_name = device.device_name;
  run.device_uuid = device.device_uuid;
  run.driver = device.driver;
  run.sm = device.sm;
  run.multiprocessors = device.multiprocessors;
  run.device_memory = device.device_memory;
  run.l2_bytes = device.l2_bytes;
  run.sm_clock_max_mhz = device.sm_clock_max_mhz;
  run.memory_clock_max_mhz = device.memory_clock_max_mhz;
  run.power_limit_w = device.power_limit_w;
}

}  // namespace fla::harness
