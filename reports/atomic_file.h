// Files that are either the old one or the complete new one, whatever goes wrong in between.
#pragma once

#include <stdexcept>
#include <string>
#include <string_view>

namespace fla::reports {

// Something could not be written; the CLIs print it and exit with kWriteFailed.
struct WriteError : std::runtime_error {
  WriteError(const std::string& path, const std::string& action, int error_number);
  int error_number;  // errno of the failing call
};

// Replaces `path` by `text`: a temporary file beside it, every write checked, fsync, rename, fsync of the
// folder. On any failure the earlier file survives, the temporary one is removed and WriteError is thrown.
// Creates missing parent folders. Follows symbolic links; a device or pipe (/dev/stdout) is written directly,
// not replaced.
void write_file(const std::string& path, std::string_view text);

// Writes all of `text` to an open descriptor; throws WriteError naming `path`.
void write_all(int descriptor, std::string_view text, const std::string& path);

}  // namespace fla::reports
