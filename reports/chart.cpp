#include "reports/chart.h"

#include <algorithm>
#include <cmath>

#include "reports/escape.h"
#include "reports/text_table.h"

namespace fla::reports {

namespace {

constexpr double kWidth = 640, kHeight = 320, kLeft = 64, kRight = 12, kTop = 10, kBottom = 44;
constexpr int kStyles = 8;

std::string at(double value) { return fixed(value, 1); }

std::string text_at(double x, double y, const char* anchor, const std::string& text) {
  return "<text x=\"" + at(x) + "\" y=\"" + at(y) + "\" text-anchor=\"" + anchor + "\">" +
         escape_markup(text) + "</text>";
}

// Maps values of one axis to pixels and knows where its ticks are.
class Scale {
 public:
  Scale(bool is_log, double low, double high, double from, double to)
      : is_log_(is_log),
        low_(is_log ? std::floor(std::log10(low) * 3) / 3 : 0),
        high_(is_log ? std::ceil(std::log10(high) * 3) / 3 : high * 1.05),
        from_(from),
        to_(to) {
    if (!(high_ > low_)) high_ = low_ + 1;
  }

  double operator()(double value) const {
    const double v = is_log_ ? std::log10(value) : value;
    return from_ + (v - low_) / (high_ - low_) * (to_ - from_);
  }

  std::vector<double> ticks() const { return is_log_ ? log_ticks() : linear_ticks(); }

 private:
  std::vector<double> log_ticks() const {
    std::vector<double> ticks;
    const bool is_wide = high_ - low_ > 2.5;
    for (int decade = int(std::floor(low_)); decade <= int(std::ceil(high_)); ++decade) {
      for (const double digit : {1.0, 2.0, 5.0}) {
        const double tick = digit * std::pow(10.0, decade);
        const bool inside = std::log10(tick) >= low_ - 1e-9 && std::log10(tick) <= high_ + 1e-9;
        if (inside && (digit == 1 || !is_wide)) ticks.push_back(tick);
      }
    }
    return ticks;
  }

  std::vector<double> linear_ticks() const {
    const double rough = high_ / 6, power = std::pow(10.0, std::floor(std::log10(rough)));
    double step = 10 * power;
    for (const double digit : {5.0, 2.0, 1.0}) {
      if (digit * power >= rough) step = digit * power;
    }
    std::vector<double> ticks;
    for (int i = 0; i * step <= high_; ++i) ticks.push_back(i * step);
    return ticks;
  }

  bool is_log_;
  double low_, high_, from_, to_;
};

std::string tick_text(double value) {
  constexpr const char* kSuffixes[] = {"", "k", "M", "G", "T"};
  int suffix = 0;
  for (; value >= 1000 && suffix < 4; ++suffix) value /= 1000;
  return significant(value) + kSuffixes[suffix];
}

bool is_drawable(const Point& p, const Chart& chart) {
  const auto fits = [](double v, const Axis& axis) {
    return std::isfinite(v) && (axis.is_log ? v > 0 : v >= 0);
  };
  return fits(p.x, chart.x) && fits(p.y, chart.y);
}

std::string marker(double x, double y, int style) {
  const std::string cx = at(x), cy = at(y);
  switch (style % 4) {
    case 0:
      return "<circle cx=\"" + cx + "\" cy=\"" + cy + "\" r=\"4\">";
    case 1:
      return "<rect x=\"" + at(x - 3.5) + "\" y=\"" + at(y - 3.5) + "\" width=\"7\" height=\"7\">";
    case 2:
      return "<path d=\"M" + cx + " " + at(y - 5) + "l5 9h-10z\">";
    default:
      return "<path d=\"M" + cx + " " + at(y - 5) + "l5 5l-5 5l-5 -5z\">";
  }
}

const char* marker_end(int style) {
  return style % 4 == 0 ? "</circle>" : style % 4 == 1 ? "</rect>" : "</path>";
}

std::string draw(const Series& series, const Chart& chart, const Scale& x, const Scale& y) {
  std::string line, markers;
  for (const Point& p : series.points) {
    if (!is_drawable(p, chart)) continue;
    line += (line.empty() ? "" : " ") + at(x(p.x)) + "," + at(y(p.y));
    markers += p.is_error ? "<g class=\"error\">" : "<g>";
    markers += marker(x(p.x), y(p.y), series.style) + "<title>" + escape_markup(p.label) + "</title>" +
               marker_end(series.style) + "</g>";
  }
  std::string text = "<g class=\"series s" + std::to_string(series.style % kStyles) +
                     (series.is_dashed ? " dashed" : "") + "\">";
  if (series.has_line) text += "<polyline points=\"" + line + "\"/>";
  if (series.has_markers) text += markers;
  return text + "</g>";
}

std::string axes(const Chart& chart, const Scale& x, const Scale& y) {
  const double bottom = kHeight - kBottom;
  std::string text = "<g class=\"axis\">";
  for (const double tick : x.ticks()) {
    const std::string px = at(x(tick));
    text += "<path d=\"M" + px + " " + at(kTop) + "V" + at(bottom) + "\"/>" +
            text_at(x(tick), bottom + 16, "middle", tick_text(tick));
  }
  for (const double tick : y.ticks()) {
    text += "<path d=\"M" + at(kLeft) + " " + at(y(tick)) + "H" + at(kWidth - kRight) + "\"/>" +
            text_at(kLeft - 6, y(tick) + 4, "end", tick_text(tick));
  }
  text += text_at((kLeft + kWidth - kRight) / 2, kHeight - 8, "middle", chart.x.label);
  return text + "<g transform=\"translate(14 " + at((kTop + bottom) / 2) + ") rotate(-90)\">" +
         text_at(0, 0, "middle", chart.y.label) + "</g></g>";
}

std::string swatch(int style) {
  return "<svg class=\"swatch\" viewBox=\"0 0 12 12\" width=\"12\" height=\"12\" aria-hidden=\"true\"><g "
         "class=\"series s" +
         std::to_string(style % kStyles) + "\">" + marker(6, 6, style) + marker_end(style) + "</g></svg>";
}

std::string legend_item(int style, const std::string& name) {
  return "<li>" + swatch(style) + " " + escape_markup(name) + "</li>";
}

std::string opening(double width, double height, const std::string& label) {
  return "<svg viewBox=\"0 0 " + fixed(width, 0) + " " + fixed(height, 0) + "\" role=\"img\" aria-label=\"" +
         escape_markup(label) + "\">";
}

}  // namespace

std::string svg_chart(const Chart& chart) {
  std::vector<double> xs, ys;
  for (const Series& series : chart.series) {
    for (const Point& p : series.points) {
      if (!is_drawable(p, chart)) continue;
      xs.push_back(p.x);
      ys.push_back(p.y);
    }
  }
  if (xs.empty()) return "";
  const auto [x_low, x_high] = std::minmax_element(xs.begin(), xs.end());
  const auto [y_low, y_high] = std::minmax_element(ys.begin(), ys.end());
  const Scale x(chart.x.is_log, *x_low, *x_high, kLeft, kWidth - kRight);
  const Scale y(chart.y.is_log, *y_low, *y_high, kHeight - kBottom, kTop);
  std::string text = "<figure><figcaption>" + escape_markup(chart.title) + "</figcaption>" +
                     opening(kWidth, kHeight, chart.title) + axes(chart, x, y);
  std::string legend;
  for (const Series& series : chart.series) {
    text += draw(series, chart, x, y);
    legend += legend_item(series.style, series.name + (series.is_dashed ? " (dashed)" : ""));
  }
  return text + "</svg><ul class=\"legend\">" + legend + "</ul></figure>\n";
}

std::string svg_bars(const std::vector<std::string>& legend, const std::vector<Bar>& bars) {
  constexpr double kRow = 22, kNames = 220, kSpan = 300;
  double largest = 0;
  for (const Bar& bar : bars) {
    double sum = 0;
    for (const double part : bar.parts) sum += part;
    largest = std::max(largest, sum);
  }
  if (!(largest > 0)) return "";
  std::string text = "<figure>" + opening(kWidth, kRow * double(bars.size()) + 4, "stacked bars");
  double y = 2;
  for (const Bar& bar : bars) {
    text += text_at(kNames - 8, y + 14, "end", bar.name);
    double x = kNames;
    for (size_t i = 0; i < bar.parts.size(); ++i) {
      const double width = bar.parts[i] / largest * kSpan;
      text += "<rect class=\"s" + std::to_string(i % kStyles) + "\" x=\"" + at(x) + "\" y=\"" + at(y) +
              "\" width=\"" + at(width) + "\" height=\"" + at(kRow - 4) + "\"/>";
      x += width;
    }
    text += text_at(x + 6, y + 14, "start", bar.text);
    y += kRow;
  }
  std::string items;
  for (size_t i = 0; i < legend.size(); ++i) {
    items += "<li><span class=\"swatch s" + std::to_string(i % kStyles) + "\"></span> " +
             escape_markup(legend[i]) + "</li>";
  }
  return text + "</svg><ul class=\"legend\">" + items + "</ul></figure>\n";
}

std::string svg_strip(const std::vector<double>& samples) {
  constexpr double kStripWidth = 320, kStripHeight = 18;
  if (samples.empty()) return "";
  const auto [low, high] = std::minmax_element(samples.begin(), samples.end());
  const double span = *high - *low;
  if (!std::isfinite(span)) return "";
  std::string ticks;
  for (const double sample : samples) {
    const double x = 2 + (span > 0 ? (sample - *low) / span : 0.5) * (kStripWidth - 4);
    ticks += "M" + at(x) + " 2v14";
  }
  return "<svg class=\"strip\" viewBox=\"0 0 320 18\" width=\"" + fixed(kStripWidth, 0) + "\" height=\"" +
         fixed(kStripHeight, 0) + "\" role=\"img\" aria-label=\"samples\"><path d=\"" + ticks + "\"/></svg>";
}

}  // namespace fla::reports
