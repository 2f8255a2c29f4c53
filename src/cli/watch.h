// Shows how far a command is.
#pragma once

#include <condition_variable>
#include <mutex>
#include <string>
#include <thread>

#include "evenspan/core/progress.h"
#include "evenspan/core/work_part.h"

namespace evenspan::cli {

// Progress of a command, looked at from a thread of its own, so that work that tells nothing is seen to last. Nothing
// is said where `quiet`, or of a command that is done within two seconds.
class Watch {
 public:
  Watch(const std::string& command, bool quiet);
  ~Watch();  // as stop()
  Watch(const Watch&) = delete;
  Watch& operator=(const Watch&) = delete;

  // All that the command does. Used no longer than the watch lives.
  WorkPart work();
  // Before anything else is written: a terminal's line goes away.
  void stop();

 private:
  void look();

  std::mutex mutex_;
  std::condition_variable stopping_;
  double done_ = 0;
  bool stopped_ = false;
  const std::string command_;
  const bool quiet_;
  std::thread thread_;  // last: it uses the rest
};

}  // namespace evenspan::cli
