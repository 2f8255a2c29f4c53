#include "train/page_parts.h"

#include <algorithm>
#include <cmath>
#include <cstdarg>
#include <cstdio>
#include <map>
#include <set>

#include "train/amounts.h"

namespace evenspan::train::page {
namespace {

constexpr double kWidth = 880;
constexpr double kLeft = 64;
constexpr double kRight = 16;

std::string svg(double height, const std::string& inside, const std::string& title) {
  return format("<svg viewBox=\"0 0 %.0f %.0f\" role=\"img\" aria-label=\"%s\">", kWidth, height, title.c_str()) +
         inside + "</svg>\n";
}

std::string label(double x, double y, const char* anchor, const std::string& text, const char* style = "") {
  return format("<text x=\"%.1f\" y=\"%.1f\" text-anchor=\"%s\" class=\"%s\">", x, y, anchor, style) + escaped(text) +
         "</text>";
}

// A step of 1, 2 or 5 times a power of ten that cuts `range` into about five.
double tick_step(double range) {
  const double raw = range / 5;
  const double power = std::pow(10, std::floor(std::log10(raw)));
  const double lead = raw / power;
  return power * (lead < 1.5 ? 1 : lead < 3.5 ? 2 : lead < 7.5 ? 5 : 10);
}

const char* const kColours[] = {"#2563eb", "#d97706", "#059669", "#7c3aed", "#dc2626",
                                "#0891b2", "#be185d", "#4d7c0f", "#b45309", "#4338ca"};

}  // namespace

std::string format(const char* pattern, ...) {
  char buffer[512];
  va_list values;
  va_start(values, pattern);
  std::vsnprintf(buffer, sizeof buffer, pattern, values);
  va_end(values);
  return buffer;
}

std::string escaped(const std::string& text) {
  std::string out;
  for (const char c : text) {
    switch (c) {
      case '<':
        out += "&lt;";
        break;
      case '>':
        out += "&gt;";
        break;
      case '&':
        out += "&amp;";
        break;
      case '"':
        out += "&quot;";
        break;
      default:
        out += c;
    }
  }
  return out;
}

std::string line_chart(const std::vector<Line>& lines, const std::string& y_label) {
  constexpr double kTop = 14;
  constexpr double kHeight = 300;
  constexpr double kBottom = 262;
  double low = 1e300;
  double high = -1e300;
  size_t steps = 1;
  for (const Line& line : lines) {
    steps = std::max(steps, line.values.size());
    for (const double v : line.values) {
      low = std::min(low, v);
      high = std::max(high, v);
    }
  }
  if (!(high > low)) high = low + 1;
  const double margin = 0.05 * (high - low);
  low = std::max(0.0, low - margin);
  high += margin;
  const auto x = [&](double step) {
    return kLeft + (kWidth - kLeft - kRight) * (steps > 1 ? (step - 1) / static_cast<double>(steps - 1) : 0.5);
  };
  const auto y = [&](double v) { return kBottom - (kBottom - kTop) * (v - low) / (high - low); };
  std::string out;
  const double dy = tick_step(high - low);
  constexpr int kMostTicks = 20;  // a step may be too small to change a large value
  for (int i = 0; i < kMostTicks; ++i) {
    const double v = (std::ceil(low / dy) + i) * dy;
    if (!(v <= high)) break;
    out += format("<line x1=\"%.1f\" x2=\"%.1f\" y1=\"%.1f\" y2=\"%.1f\" class=\"grid\"/>", kLeft, kWidth - kRight,
                  y(v), y(v));
    out += label(kLeft - 8, y(v) + 4, "end", format("%.3g", v));
  }
  const double dx = std::max(1.0, tick_step(static_cast<double>(steps)));
  for (double s = dx; s <= static_cast<double>(steps); s += dx)
    out += label(x(s), kBottom + 18, "middle", format("%.0f", s));
  out += label(kWidth - kRight, kHeight - 4, "end", "step", "muted") +
         label(kLeft, kHeight - 4, "start", y_label, "muted");
  for (const Line& line : lines) {
    out += format("<polyline fill=\"none\" stroke=\"%s\" stroke-width=\"%s\"%s points=\"", line.colour.c_str(),
                  line.dashed ? "1.6" : "3.5", line.dashed ? " stroke-dasharray=\"5 4\"" : " stroke-opacity=\"0.55\"");
    for (size_t i = 0; i < line.values.size(); ++i)
      out += format("%.1f,%.1f ", x(static_cast<double>(i + 1)), y(line.values[i]));
    out += "\"/>";
  }
  double at = kWidth - kRight - 190;
  double row = kTop + 12;
  for (const Line& line : lines) {
    out += format("<line x1=\"%.1f\" x2=\"%.1f\" y1=\"%.1f\" y2=\"%.1f\" stroke=\"%s\" stroke-width=\"%s\"%s/>", at,
                  at + 28, row - 4, row - 4, line.colour.c_str(), line.dashed ? "1.6" : "3.5",
                  line.dashed ? " stroke-dasharray=\"5 4\"" : " stroke-opacity=\"0.55\"");
    out += label(at + 36, row, "start", line.label);
    row += 20;
  }
  return svg(kHeight, out, y_label);
}

std::string placement_chart(const RunRecord::Step& step) {
  constexpr double kRow = 46;
  constexpr double kBar = 30;
  const size_t ranks = step.placement.size();
  std::map<int64_t, std::set<size_t>> homes;  // document -> ranks
  int64_t most = 1;
  for (size_t r = 0; r < ranks; ++r) {
    int64_t tokens = 0;
    for (const auto& span : step.placement[r]) {
      homes[span[0]].insert(r);
      tokens += span[2] - span[1];
    }
    most = std::max(most, tokens);
  }
  std::map<int64_t, std::string> colours;
  for (const auto& [document, on] : homes) {
    if (on.size() > 1) {
      const std::string colour = kColours[colours.size() % std::size(kColours)];
      colours.emplace(document, colour);
    }
  }
  const auto x = [&](double tokens) {
    return kLeft + (kWidth - kLeft - kRight - 60) * tokens / static_cast<double>(most);
  };
  std::string out;
  for (size_t r = 0; r < ranks; ++r) {
    const double top = 6 + kRow * static_cast<double>(r);
    out += label(kLeft - 10, top + kBar / 2 + 5, "end", format("rank %zu", r));
    double at = 0;
    bool odd = false;
    for (const auto& span : step.placement[r]) {
      const auto size = static_cast<double>(span[2] - span[1]);
      const auto colour = colours.find(span[0]);
      odd = !odd;
      const std::string fill = colour != colours.end() ? colour->second : odd ? "#d6dbe4" : "#e6e9ef";
      out += format(
          "<rect x=\"%.2f\" y=\"%.1f\" width=\"%.2f\" height=\"%.0f\" fill=\"%s\" class=\"span\"><title>document %lld, "
          "tokens %lld to %lld of %lld</title></rect>",
          x(at), top, std::max(0.4, x(at + size) - x(at)), kBar, fill.c_str(), static_cast<long long>(span[0]),
          static_cast<long long>(span[1]), static_cast<long long>(span[2]),
          static_cast<long long>(step.lengths[static_cast<size_t>(span[0])]));
      if (colour != colours.end() && x(at + size) - x(at) > 26) {
        out += label((x(at) + x(at + size)) / 2, top + kBar / 2 + 4, "middle",
                     format("%lld", static_cast<long long>(span[0])), "onbar");
      }
      at += size;
    }
    out += label(x(at) + 8, top + kBar / 2 + 5, "start", format("%.0f", at), "muted");
  }
  return svg(kRow * static_cast<double>(ranks) + 4, out, "placement of the documents");
}

std::string bar_chart(const std::vector<std::string>& labels, const std::vector<double>& values,
                      const std::vector<std::string>& texts, double mark, const std::string& mark_label) {
  constexpr double kRow = 34;
  constexpr double kBar = 20;
  constexpr double kNames = 120;
  constexpr double kTexts = 250;
  const double most = std::max(1e-300, std::max(mark, *std::max_element(values.begin(), values.end())));
  const auto x = [&](double v) { return kNames + (kWidth - kNames - kTexts) * v / most; };
  std::string out;
  for (size_t i = 0; i < values.size(); ++i) {
    const double top = 6 + kRow * static_cast<double>(i);
    out += label(kNames - 10, top + 15, "end", labels[i]);
    out += format("<rect x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.0f\" rx=\"2\" class=\"bar\"/>", kNames, top,
                  std::max(1.0, x(values[i]) - kNames), kBar);
    out += label(x(std::max(values[i], mark)) + 10, top + 15, "start", texts[i]);
  }
  double height = kRow * static_cast<double>(values.size()) + 4;
  if (mark >= 0) {
    out += format("<line x1=\"%.1f\" x2=\"%.1f\" y1=\"2\" y2=\"%.1f\" class=\"mark\"/>", x(mark), x(mark), height);
    height += 18;
    out += label(x(mark), height - 4, "middle", mark_label, "muted");
  }
  return svg(height, out, "bars");
}

std::string matrix_chart(const std::vector<std::vector<int64_t>>& bytes) {
  const size_t n = bytes.size();
  const double cell_width = std::min(130.0, (kWidth - 100) / static_cast<double>(n));
  const double cell_height = std::min(44.0, cell_width);
  constexpr double kNames = 70;
  constexpr double kTop = 28;
  int64_t most = 1;
  for (const auto& row : bytes) most = std::max(most, *std::max_element(row.begin(), row.end()));
  std::string out = label(kNames - 10, kTop - 9, "end", "from \\ to", "muted");
  for (size_t from = 0; from < n; ++from) {
    const double y = kTop + cell_height * static_cast<double>(from);
    out += label(kNames - 10, y + cell_height / 2 + 5, "end", format("rank %zu", from));
    out += label(kNames + cell_width * (static_cast<double>(from) + 0.5), kTop - 9, "middle", format("rank %zu", from));
    for (size_t to = 0; to < n; ++to) {
      const double share = static_cast<double>(bytes[from][to]) / static_cast<double>(most);
      const auto mix = [&](int light, int dark) {
        return static_cast<int>(std::lround(light + (dark - light) * share));
      };
      const double x = kNames + cell_width * static_cast<double>(to);
      out +=
          format("<rect x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\" fill=\"%s\" class=\"cell\"/>", x, y,
                 cell_width, cell_height,
                 from == to ? "#f4f5f7" : format("rgb(%d,%d,%d)", mix(239, 29), mix(244, 78), mix(255, 216)).c_str());
      const std::string text = from == to             ? ""
                               : bytes[from][to] == 0 ? "0"
                                                      : bytes_text(static_cast<double>(bytes[from][to]));
      if (cell_width > 56)
        out += label(x + cell_width / 2, y + cell_height / 2 + 5, "middle", text, share > 0.5 ? "onbar" : "");
    }
  }
  return svg(kTop + cell_height * static_cast<double>(n) + 6, out, "bytes between ranks");
}

}  // namespace evenspan::train::page
