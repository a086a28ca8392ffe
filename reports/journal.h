// The journal of a run in progress: NAME.partial.jsonl, a header line and then one line per finished case.
// Append-only, one write() per line, so that a process killed at any point leaves every finished case
// readable.
#pragma once

#include <string>
#include <vector>

#include "harness/result.h"
#include "reports/atomic_file.h"
#include "reports/json.h"

namespace fla::reports {

// "out/check.json" -> "out/check.partial.jsonl".
std::string journal_path(const std::string& result_path);

class Journal {
 public:
  // A new journal with `run` as its header; replaces an older one, creates missing folders. Throws
  // WriteError.
  Journal(const std::string& path, const harness::RunInfo& run);
  // Goes on with the journal at `path`, whose first `length` bytes are intact (JournalContent::length).
  Journal(const std::string& path, int64_t length);
  ~Journal();
  Journal(const Journal&) = delete;
  Journal& operator=(const Journal&) = delete;

  // Throws WriteError; the lines before stay whole.
  void add(const harness::Result&);
  const std::string& path() const { return path_; }

 private:
  void open(int flags);
  void append(const std::string& line);

  std::string path_;
  int descriptor_ = -1;
  int64_t length_ = 0;
};

struct JournalContent {
  harness::RunInfo run;
  std::vector<harness::Result> cases;
  int64_t length = 0;  // bytes of whole lines
  bool torn = false;   // a last line was cut off and is not among the cases
};

// Throws FormatError when the file is no journal or a line other than the last is damaged.
JournalContent read_journal(const std::string& path);

// The result file's content. An `interrupted` record is dropped where a later one of the same case exists.
harness::RunResult assemble(JournalContent content, int exit_code);

}  // namespace fla::reports
