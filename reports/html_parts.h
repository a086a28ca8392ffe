// Pieces of the report page.
#pragma once

#include <string>
#include <string_view>

#include "harness/result.h"
#include "reports/peers.h"

namespace fla::reports {

// <tag attributes>text</tag>; `text` is escaped, `attributes` are not.
std::string element(const char* tag, std::string_view text, std::string_view attributes = "");
// A table cell that sorts by `value` and shows `text`.
std::string number_cell(double value, const std::string& text);

// The table of all cases with what unfolds below each; anchors start with `prefix`.
std::string html_cases(const harness::RunResult&, const Peers*, const std::string& prefix);
std::string html_case_details(const harness::Result&, const Peers*);

extern const char* const kPageStyle;
extern const char* const kPageScript;

}  // namespace fla::reports
