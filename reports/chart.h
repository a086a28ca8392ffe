// Plain SVG charts, drawn here so that the page reads without scripts. Colours and dark mode are page.css's.
#pragma once

#include <string>
#include <vector>

namespace fla::reports {

struct Point {
  double x = 0, y = 0;
  std::string label;      // shown when pointed at
  bool is_error = false;  // drawn as one: the value cannot be true
};

struct Series {
  std::string name;
  std::vector<Point> points;
  int style = 0;  // colour and marker
  bool has_line = false, is_dashed = false, has_markers = true;
};

struct Axis {
  std::string label;
  bool is_log = false;  // else it starts at zero
};

struct Chart {
  std::string title;
  Axis x, y;
  std::vector<Series> series;
};

// The chart with its legend. Points that are not finite (or not positive on a logarithmic axis) are left out;
// without any point left the answer is "".
std::string svg_chart(const Chart&);

struct Bar {
  std::string name;
  std::vector<double> parts;
  std::string text;  // printed after the bar
};

// Horizontal stacked bars, the parts in the styles 0, 1, ... with `legend` naming them; all on one scale.
std::string svg_bars(const std::vector<std::string>& legend, const std::vector<Bar>&);

// The samples of one measurement as a strip of ticks from the smallest to the largest.
std::string svg_strip(const std::vector<double>& samples);

}  // namespace fla::reports
