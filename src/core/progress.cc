#include "evenspan/core/progress.h"

#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <utility>

#include "evenspan/core/error.h"

namespace evenspan {
namespace {

constexpr double kQuietSeconds = 2;
constexpr double kTerminalSeconds = 0.5;  // between two lines
constexpr double kMostSeconds = 600;      // between two lines of a file

}  // namespace

std::string duration_text(double seconds) {
  constexpr double kDay = 86400;
  if (!(seconds >= 0 && seconds < 1000 * kDay)) return "unknown";
  if (seconds < 0.95) return join_text(std::round(seconds * 10) / 10, " s");
  const long long whole = std::llround(seconds);
  if (whole < 60) return join_text(whole, " s");
  if (whole < 3600) return join_text(whole / 60, " min ", whole % 60, " s");
  const long long minutes = (whole + 30) / 60;
  if (minutes < 1440) return join_text(minutes / 60, " h ", minutes % 60, " min");
  const long long hours = (minutes + 30) / 60;
  return join_text(hours / 24, " d ", hours % 24, " h");
}

ProgressSink standard_error_sink() {
  return {[](const std::string& text) {
            std::fputs(text.c_str(), stderr);
            std::fflush(stderr);
          },
          [] { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); },
          isatty(STDERR_FILENO) != 0};
}

ProgressSink silent_sink() { return {}; }

Progress::Progress(std::string what, ProgressSink sink) : what_(std::move(what)), sink_(std::move(sink)) {
  if (!sink_.write) return;
  start_ = sink_.now();
  due_ = start_ + kQuietSeconds;
}

Progress::~Progress() {
  if (shown_ > 0) sink_.write("\r" + std::string(shown_, ' ') + "\r");
}

void Progress::say(double now, const std::string& how_far) {
  const std::string line = what_ + ": " + how_far;
  if (!sink_.rewrites) {
    sink_.write(line + "\n");
    due_ = now + std::min(now - start_, kMostSeconds);
    return;
  }
  const size_t rest = shown_ > line.size() ? shown_ - line.size() : 0;
  sink_.write("\r" + line + std::string(rest, ' '));
  shown_ = line.size();
  due_ = now + kTerminalSeconds;
}

void Progress::at(double done, double total) {
  if (!sink_.write) return;
  const double now = sink_.now();
  if (!is_due(now)) return;
  if (!(total > 0 && done > 0)) return say(now, duration_text(now - start_) + " so far");
  const double share = std::min(1.0, done / total);
  say(now, join_text(std::floor(share * 100), " %, ", duration_text((now - start_) * (1 - share) / share), " left"));
}

void Progress::expect(double seconds) {
  if (!sink_.write) return;
  const double now = sink_.now();
  if (!is_due(now)) return;
  const double left = start_ + seconds - now;
  std::string text = duration_text(now - start_) + " so far";
  if (left > 0) text += ", about " + duration_text(left) + " left";
  say(now, text);
}

}  // namespace evenspan
