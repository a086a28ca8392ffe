#include "reports/escape.h"

#include <cstdint>

namespace fla::reports {

constexpr const char* kReplacement = "\xEF\xBF\xBD";

namespace {

struct Decoded {
  uint32_t code = 0;
  size_t length = 0;  // 0: not UTF-8
};

Decoded decode(std::string_view text) {
  const auto byte = [&](size_t i) { return static_cast<uint8_t>(text[i]); };
  const uint8_t first = byte(0);
  if (first < 0x80) return {first, 1};
  const size_t length = first >= 0xF0 && first < 0xF8 ? 4 : first >= 0xE0 ? 3 : first >= 0xC2 ? 2 : 0;
  if (first >= 0xF8 || length == 0 || text.size() < length) return {};
  uint32_t code = first & (0xFF >> (length + 1));
  for (size_t i = 1; i < length; ++i) {
    if ((byte(i) & 0xC0) != 0x80) return {};
    code = code << 6 | (byte(i) & 0x3F);
  }
  constexpr uint32_t kSmallest[] = {0, 0, 0x80, 0x800, 0x10000};
  if (code < kSmallest[length] || code > 0x10FFFF || (code >= 0xD800 && code < 0xE000)) return {};
  return {code, length};
}

// Also out: the direction overrides, which make a line read differently from what it is, and U+FFFE/F, which
// XML forbids.
bool printable(uint32_t code) {
  if (code < 0x20) return code == '\n' || code == '\t';
  if (code >= 0x7F && code < 0xA0) return false;
  const bool direction = (code >= 0x202A && code <= 0x202E) || (code >= 0x2066 && code <= 0x2069);
  return !direction && (code & 0xFFFE) != 0xFFFE;
}

// Replaces single characters by strings; a null answer keeps the character.
template <class Replace>
std::string substitute(std::string_view text, Replace&& replace) {
  std::string out;
  out.reserve(text.size());
  for (const char c : text) {
    if (const char* other = replace(c)) out += other;
    else out += c;
  }
  return out;
}

}  // namespace

std::string clean(std::string_view text) {
  std::string out;
  out.reserve(text.size());
  while (!text.empty()) {
    const Decoded d = decode(text);
    const size_t step = d.length ? d.length : 1;
    if (d.length && printable(d.code)) out += text.substr(0, step);
    else out += kReplacement;
    text.remove_prefix(step);
  }
  return out;
}

std::string one_line(std::string_view text) {
  return substitute(clean(text), [](char c) { return c == '\n' || c == '\t' ? " " : nullptr; });
}

std::string escape_markup(std::string_view text) {
  return substitute(clean(text), [](char c) -> const char* {
    switch (c) {
      case '&':
        return "&amp;";
      case '<':
        return "&lt;";
      case '>':
        return "&gt;";
      case '"':
        return "&quot;";
      case '\'':
        return "&#39;";
      default:
        return nullptr;
    }
  });
}

std::string escape_script_json(std::string_view json) {
  return substitute(json, [](char c) { return c == '<' ? "\\u003c" : nullptr; });
}

std::string escape_workflow_message(std::string_view text) {
  return substitute(clean(text), [](char c) { return c == '%' ? "%25" : c == '\n' ? "%0A" : nullptr; });
}

std::string escape_workflow_property(std::string_view text) {
  return substitute(escape_workflow_message(text), [](char c) {
    return c == ':' ? "%3A" : c == ',' ? "%2C" : nullptr;
  });
}

std::string escape_csv(std::string_view text) {
  const std::string cleaned = clean(text);
  if (cleaned.find_first_of(",\"\n") == std::string::npos) return cleaned;
  return '"' + substitute(cleaned, [](char c) { return c == '"' ? "\"\"" : nullptr; }) + '"';
}

std::string escape_markdown_cell(std::string_view text) {
  return substitute(one_line(text), [](char c) -> const char* {
    switch (c) {
      case '|':
        return "\\|";
      case '\\':
        return "\\\\";
      case '`':
        return "\\`";
      case '*':
        return "\\*";
      case '_':
        return "\\_";
      case '[':
        return "\\[";
      case ']':
        return "\\]";
      case '<':
        return "&lt;";
      case '&':
        return "&amp;";
      default:
        return nullptr;
    }
  });
}

}  // namespace fla::reports
