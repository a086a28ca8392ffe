#include "reports/text_table.h"

#include <algorithm>
#include <cmath>
#include <cstdio>

#include "reports/escape.h"

namespace fla::reports {

std::string fixed(double value, int digits) {
  if (std::isnan(value)) return "nan";
  if (std::isinf(value)) return value > 0 ? "inf" : "-inf";
  if (std::abs(value) >= 1e15) return significant(value);
  char text[64];
  std::snprintf(text, sizeof text, "%.*f", digits, value);
  return text;
}

std::string significant(double value) {
  if (!std::isfinite(value)) return fixed(value, 0);
  char text[32];
  std::snprintf(text, sizeof text, "%.6g", value);
  return text;
}

std::string microseconds(double us) { return fixed(us, us < 10 ? 2 : us < 100 ? 1 : 0); }
std::string percent(double share) { return fixed(100 * share, 1) + " %"; }
std::string factor(double ratio) { return fixed(ratio, 2) + "x"; }

std::string byte_count(int64_t bytes) {
  constexpr const char* kUnits[] = {"KiB", "MiB", "GiB", "TiB"};
  if (std::abs(static_cast<double>(bytes)) < 1024) return std::to_string(bytes) + " B";
  double value = static_cast<double>(bytes) / 1024;
  int unit = 0;
  for (; std::abs(value) >= 1024 && unit < 3; ++unit) value /= 1024;
  return fixed(value, std::abs(value) < 10 ? 2 : 1) + " " + kUnits[unit];
}

static size_t width(const std::string& text) {
  return static_cast<size_t>(
      std::count_if(text.begin(), text.end(), [](char c) { return (c & 0xC0) != 0x80; }));
}

static std::string cell(const Table& table, size_t row, size_t column) {
  return column < table.rows[row].size() ? table.rows[row][column] : "";
}

static std::string padded(const std::string& text, size_t size, bool right) {
  const std::string space(size - std::min(size, width(text)), ' ');
  return right ? space + text : text + space;
}

static void append_line(std::string& out, std::string line) {
  line.erase(line.find_last_not_of(' ') + 1);
  out += line + '\n';
}

std::string aligned(const Table& table) {
  const size_t columns = table.columns.size();
  std::vector<size_t> widths(columns);
  for (size_t c = 0; c < columns; ++c) {
    widths[c] = width(table.columns[c].title);
    for (size_t r = 0; r < table.rows.size(); ++r) {
      widths[c] = std::max(widths[c], width(one_line(cell(table, r, c))));
    }
  }
  std::string out, titles, rule;
  for (size_t c = 0; c < columns; ++c) {
    titles += padded(table.columns[c].title, widths[c], table.columns[c].is_number) + "  ";
    rule += std::string(widths[c], '-') + "  ";
  }
  append_line(out, titles);
  append_line(out, rule);
  for (size_t r = 0; r < table.rows.size(); ++r) {
    std::string line;
    for (size_t c = 0; c < columns; ++c) {
      line += padded(one_line(cell(table, r, c)), widths[c], table.columns[c].is_number) + "  ";
    }
    append_line(out, line);
  }
  return out;
}

std::string markdown(const Table& table) {
  std::string out = "|", rule = "|";
  for (const Table::Column& column : table.columns) {
    out += " " + escape_markdown_cell(column.title) + " |";
    rule += column.is_number ? " ---: |" : " --- |";
  }
  out += "\n" + rule + "\n";
  for (size_t r = 0; r < table.rows.size(); ++r) {
    out += "|";
    for (size_t c = 0; c < table.columns.size(); ++c)
      out += " " + escape_markdown_cell(cell(table, r, c)) + " |";
    out += "\n";
  }
  return out;
}

}  // namespace fla::reports
