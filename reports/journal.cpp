#include "reports/journal.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <set>

namespace fla::reports {

using harness::CaseStatus;
using harness::Result;

std::string journal_path(const std::string& result_path) {
  return std::filesystem::path(result_path).replace_extension(".partial.jsonl").string();
}

Journal::Journal(const std::string& path, const harness::RunInfo& run) : path_(path) {
  Json header;
  header["schema"] = kResultSchema;
  header["run"] = to_json(run);
  write_file(path_, dump_json(header) + "\n");
  length_ = static_cast<int64_t>(std::filesystem::file_size(path_));
  open(O_WRONLY | O_APPEND);
}

Journal::Journal(const std::string& path, int64_t length) : path_(path), length_(length) {
  open(O_WRONLY | O_APPEND);
  if (::ftruncate(descriptor_, length_) == 0) return;
  const int error = errno;
  ::close(descriptor_);
  throw WriteError(path_, "truncate", error);
}

Journal::~Journal() {
  if (descriptor_ >= 0) ::close(descriptor_);
}

void Journal::open(int flags) {
  descriptor_ = ::open(path_.c_str(), flags | O_CLOEXEC);
  if (descriptor_ < 0) throw WriteError(path_, "open", errno);
}

void Journal::add(const Result& result) { append(dump_json(to_json(result)) + "\n"); }

void Journal::append(const std::string& line) {
  try {
    write_all(descriptor_, line, path_);
  } catch (const WriteError&) {
    // Cuts half a line off again; should that fail too, the reader takes it for a torn one.
    [[maybe_unused]] const int ignored = ::ftruncate(descriptor_, length_);
    throw;
  }
  length_ += static_cast<int64_t>(line.size());
}

static void read_line(const Json& line, bool is_header, JournalContent& content) {
  if (is_header) {
    require_schema(line);
    return from_json(line.value("run", Json::object()), content.run);
  }
  Result result;
  from_json(line, result);
  content.cases.push_back(std::move(result));
}

JournalContent read_journal(const std::string& path) {
  const std::string text = load_text(path);
  JournalContent content;
  size_t begin = 0, line_number = 0;
  while (begin < text.size()) {
    ++line_number;
    const size_t end = text.find('\n', begin);
    if (end == std::string::npos) break;
    try {
      const Json line = parse_json(std::string_view(text).substr(begin, end - begin), "JSON");
      read_line(line, line_number == 1, content);
    } catch (const FormatError& e) {
      const bool last = end + 1 == text.size();
      if (line_number == 1 || !last)
        throw FormatError(path + ":" + std::to_string(line_number) + ": " + e.what());
      break;
    }
    begin = end + 1;
  }
  if (begin == 0) throw FormatError(path + ": no journal: its first line is missing");
  content.length = static_cast<int64_t>(begin);
  content.torn = begin < text.size();
  return content;
}

harness::RunResult assemble(JournalContent content, int exit_code) {
  std::set<std::pair<std::string, std::string>> seen;
  std::vector<Result> kept;
  for (auto it = content.cases.rbegin(); it != content.cases.rend(); ++it) {
    const bool repeated = !seen.emplace(it->backend, it->case_text).second;
    if (repeated && it->status == CaseStatus::interrupted) continue;
    kept.push_back(std::move(*it));
  }
  std::reverse(kept.begin(), kept.end());
  return {std::move(content.run), std::move(kept), exit_code};
}

}  // namespace fla::reports
