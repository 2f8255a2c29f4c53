// How far long work has come, on standard error: "reading data: 34 %, 1 min 20 s left".
#pragma once

#include <functional>
#include <string>

namespace evenspan {

// "0.4 s", "45 s", "3 min 20 s", "2 h 5 min", "3 d 4 h"; for a time that is no number or beyond 1,000 days "unknown".
std::string duration_text(double seconds);

// Where progress is shown and what time it is there.
struct ProgressSink {
  std::function<void(const std::string&)> write;  // null: shown nowhere
  std::function<double()> now;                    // seconds
  bool rewrites = false;  // a terminal, on which a line replaces the one before; elsewhere lines become rarer with time
};
ProgressSink standard_error_sink();
ProgressSink silent_sink();

// Says nothing of work that ends within two seconds. A terminal then gets a line twice a second, which goes away at the
// end; a file gets one at 2, 4, 8, ... seconds, and at least one in ten minutes. One thread at a time.
class Progress {
 public:
  // `what` begins the line: "reading data".
  explicit Progress(std::string what, ProgressSink sink = standard_error_sink());
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  // `done` of `total` parts of the work are done; what is left is taken to be as fast. A total of 0 is unknown: only
  // the time so far is said. Cheap enough to call for every document.
  void at(double done, double total);
  // The same where only the expected time is known: 0 if not even that.
  void expect(double seconds);

 private:
  void say(double now, const std::string& how_far);
  bool is_due(double now) const { return now >= due_; }

  std::string what_;
  ProgressSink sink_;
  double start_ = 0;
  double due_ = 0;
  size_t shown_ = 0;  // characters of the line on a terminal
};

}  // namespace evenspan
