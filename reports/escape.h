// Text from outside (case strings, device names, messages of drivers) made safe for where it is printed.
#pragma once

#include <string>
#include <string_view>

namespace fla::reports {

// Valid UTF-8 without control characters: what is neither becomes U+FFFD. Newlines and tabs stay.
std::string clean(std::string_view text);
// The same on one line: newlines and tabs become spaces.
std::string one_line(std::string_view text);

// For element content and quoted attributes of HTML and XML.
std::string escape_markup(std::string_view text);
// JSON inside <script type="application/json">: no "<" survives, the JSON means the same.
std::string escape_script_json(std::string_view json);

// GitHub workflow commands (::error title=PROPERTY::MESSAGE).
std::string escape_workflow_message(std::string_view text);
std::string escape_workflow_property(std::string_view text);

std::string escape_csv(std::string_view text);            // quoted where needed
std::string escape_markdown_cell(std::string_view text);  // one line, no markup, no column breaks

}  // namespace fla::reports
