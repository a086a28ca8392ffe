// Numbers as people read them, and tables of text.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace fla::reports {

std::string fixed(double value, int digits);  // "0.35"; "nan", "inf"
std::string significant(double value);        // six significant digits: "1.17549e-38"
std::string microseconds(double us);          // three significant digits or whole: "1.52", "71.1", "1090"
std::string percent(double share);            // "95.1 %"
std::string factor(double ratio);             // "1.05x"
std::string byte_count(int64_t bytes);        // "4.00 GiB"

struct Table {
  struct Column {
    std::string title;
    bool is_number = false;  // aligned to the right
  };
  std::vector<Column> columns;
  std::vector<std::vector<std::string>> rows;  // missing cells are empty
};

// Columns padded with spaces, a line under the titles. Cells are cleaned to one line.
std::string aligned(const Table&);
// A GitHub table.
std::string markdown(const Table&);

}  // namespace fla::reports
