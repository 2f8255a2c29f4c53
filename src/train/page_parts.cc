#include "train/page_parts.h"

#include <algorithm>
#include <cmath>
#include <cstdarg>
#include <cstdio>
#include <map>
#include <set>

#include "evenspan/core/grouped.h"

namespace evenspan::train::page {
namespace {

constexpr double kWidth = 520;
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

// One unit for all bytes of a picture, that of the largest.
struct ByteUnit {
  double size;
  const char* name;
};
ByteUnit unit_of(double most) {
  for (const ByteUnit unit : {ByteUnit{1e12, "TB"}, ByteUnit{1e9, "GB"}, ByteUnit{1e6, "MB"}, ByteUnit{1e3, "kB"}}) {
    if (most >= unit.size) return unit;
  }
  return {1, "B"};
}

// A number of at most `digits` places after the point, in groups of three before it.
std::string number_text(double number, int digits) {
  if (!(std::abs(number) < 1e15)) return format("%.3g", number);
  const double power = std::pow(10, digits), whole = std::floor(number + 0.5 / power);
  std::string rest = format("%.*f", digits, std::max(0.0, number - whole)).substr(1);
  while (!rest.empty() && (rest.back() == '0' || rest.back() == '.')) rest.pop_back();
  return grouped(static_cast<int64_t>(whole)) + rest;
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
  constexpr double kTop = 34;  // below the legend
  constexpr double kHeight = 320;
  constexpr double kBottom = 282;
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
    out += label(kLeft - 8, y(v) + 4, "end", number_text(v, 3));
  }
  const double dx = std::max(1.0, tick_step(static_cast<double>(steps)));
  for (double s = dx; s <= static_cast<double>(steps); s += dx)
    out += label(x(s), kBottom + 18, "middle", number_text(s, 0));
  out += label(kWidth - kRight, kHeight - 4, "end", "step", "muted") +
         label(kLeft, kHeight - 4, "start", y_label, "muted");
  for (const Line& line : lines) {
    out += format("<polyline fill=\"none\" stroke=\"%s\" stroke-width=\"%s\"%s points=\"", line.colour.c_str(),
                  line.dashed ? "1.6" : "3.5", line.dashed ? " stroke-dasharray=\"5 4\"" : " stroke-opacity=\"0.55\"");
    for (size_t i = 0; i < line.values.size(); ++i)
      out += format("%.1f,%.1f ", x(static_cast<double>(i + 1)), y(line.values[i]));
    out += "\"/>";
  }
  double at = kLeft;
  constexpr double row = 16;
  for (const Line& line : lines) {
    out += format("<line x1=\"%.1f\" x2=\"%.1f\" y1=\"%.1f\" y2=\"%.1f\" stroke=\"%s\" stroke-width=\"%s\"%s/>", at,
                  at + 28, row - 4, row - 4, line.colour.c_str(), line.dashed ? "1.6" : "3.5",
                  line.dashed ? " stroke-dasharray=\"5 4\"" : " stroke-opacity=\"0.55\"");
    out += label(at + 36, row, "start", line.label);
    at += 140;
  }
  return svg(kHeight, out, y_label);
}

std::string placement_chart(const RunRecord::Step& step) {
  constexpr double kRow = 46;
  constexpr double kBar = 30;
  constexpr double kTop = 22;  // below the heading of the numbers
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
    return kLeft + (kWidth - kLeft - kRight - 70) * tokens / static_cast<double>(most);
  };
  std::string out = label(kWidth - kRight, 14, "end", "tokens", "muted");
  for (size_t r = 0; r < ranks; ++r) {
    const double top = kTop + kRow * static_cast<double>(r);
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
          "tokens %s to %s of %s</title></rect>",
          x(at), top, std::max(0.4, x(at + size) - x(at)), kBar, fill.c_str(), static_cast<long long>(span[0]),
          grouped(span[1]).c_str(), grouped(span[2]).c_str(),
          grouped(step.lengths[static_cast<size_t>(span[0])]).c_str());
      if (colour != colours.end() && x(at + size) - x(at) > 26) {
        out += label((x(at) + x(at + size)) / 2, top + kBar / 2 + 4, "middle",
                     format("%lld", static_cast<long long>(span[0])), "onbar");
      }
      at += size;
    }
    out += label(kWidth - kRight, top + kBar / 2 + 5, "end", number_text(at, 0), "muted");
  }
  return svg(kTop + kRow * static_cast<double>(ranks), out, "placement of the documents");
}

std::string bar_chart(const std::vector<std::string>& labels, const std::vector<double>& values,
                      const std::vector<std::string>& texts, double mark, const std::string& mark_label) {
  constexpr double kRow = 34;
  constexpr double kBar = 20;
  constexpr double kNames = 84;
  constexpr double kTexts = 258;
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

std::vector<std::string> byte_texts(const std::vector<double>& bytes) {
  const ByteUnit unit = unit_of(*std::max_element(bytes.begin(), bytes.end()));
  std::vector<std::string> texts;
  for (const double value : bytes) texts.push_back(number_text(value / unit.size, 2) + " " + unit.name);
  return texts;
}

std::string matrix_chart(const std::vector<std::vector<int64_t>>& bytes) {
  constexpr double kNames = 70;
  constexpr double kTop = 46;
  constexpr double kScale = 260;  // the width of the scale
  const size_t n = bytes.size();
  const double cell_width = std::min(120.0, (kWidth - kNames - kRight) / static_cast<double>(n));
  const double cell_height = std::min(44.0, cell_width);
  int64_t most = 1;
  for (const auto& row : bytes) most = std::max(most, *std::max_element(row.begin(), row.end()));
  const ByteUnit unit = unit_of(static_cast<double>(most));
  const auto amount = [&](double value) { return number_text(value / unit.size, 1); };
  const auto colour = [](double share) {
    const auto mix = [share](int light, int dark) {
      return static_cast<int>(std::lround(light + (dark - light) * share));
    };
    return format("rgb(%d,%d,%d)", mix(239, 29), mix(244, 78), mix(255, 216));
  };
  const auto rect = [](double x, double y, double width, double height, const std::string& fill, const char* kind) {
    return format("<rect x=\"%.1f\" y=\"%.1f\" width=\"%.1f\" height=\"%.1f\" fill=\"%s\" class=\"%s\"/>", x, y, width,
                  height, fill.c_str(), kind);
  };
  // As many names as there is room for.
  const auto each = static_cast<size_t>(std::max(1.0, std::ceil(26 / cell_width)));
  const bool has_numbers = cell_width > 44;
  std::string out = label(kNames, 14, "start", format("to rank, %s", unit.name), "muted") +
                    label(kNames - 10, kTop - 9, "end", "from", "muted");
  for (size_t from = 0; from < n; ++from) {
    const double y = kTop + cell_height * static_cast<double>(from);
    if (from % each == 0) {
      const double x = kNames + cell_width * (static_cast<double>(from) + 0.5);
      out += label(kNames - 10, y + cell_height / 2 + 5, "end", format("%zu", from));
      out += label(x, kTop - 9, "middle", format("%zu", from));
    }
    for (size_t to = 0; to < n; ++to) {
      const double share = static_cast<double>(bytes[from][to]) / static_cast<double>(most);
      const double x = kNames + cell_width * static_cast<double>(to);
      out += rect(x, y, cell_width, cell_height, from == to ? "#f4f5f7" : colour(share), "cell");
      if (!has_numbers || from == to) continue;
      out += label(x + cell_width / 2, y + cell_height / 2 + 5, "middle", amount(static_cast<double>(bytes[from][to])),
                   share > 0.5 ? "onbar" : "");
    }
  }
  const double scale = kTop + cell_height * static_cast<double>(n) + 14;
  constexpr int kParts = 26;
  for (int part = 0; part < kParts; ++part) {
    out += rect(kNames + kScale * part / kParts, scale, kScale / kParts + 0.5, 12, colour((part + 0.5) / kParts), "");
  }
  for (const double share : {0.0, 0.5, 1.0}) {
    out += label(kNames + kScale * share, scale + 28, share == 0 ? "start" : "middle",
                 amount(share * static_cast<double>(most)) + " " + unit.name, "muted");
  }
  return svg(scale + 36, out, "bytes between ranks");
}

}  // namespace evenspan::train::page
