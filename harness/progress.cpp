#include "harness/progress.h"

#include <unistd.h>

#include <cstdio>

#include "reports/escape.h"

namespace fla::harness {

Progress::Progress(size_t total, bool verbose)
    : total_(total),
      verbose_(verbose),
      shown_(!verbose && ::isatty(2) == 1),
      start_(std::chrono::steady_clock::now()) {}

Progress::~Progress() {
  if (shown_) std::fputs("\r\033[K", stderr);
}

void Progress::finished(const Result& r) {
  ++done_;
  failures_ += is_failure(r.status);
  if (verbose_)
    std::fprintf(stderr, "%-10s %-9s %6.2f s  %s\n", name_of(r.status), r.backend.c_str(), r.seconds,
                 reports::one_line(r.case_text).c_str());
  if (!shown_) return;
  const double elapsed = std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
  const double left = elapsed / static_cast<double>(done_) * static_cast<double>(total_ - done_);
  std::fprintf(stderr, "\r\033[K%zu/%zu, %zu failed, %.0f s left  %.60s", done_, total_, failures_, left,
               reports::one_line(r.case_text).c_str());
}

}  // namespace fla::harness
