// Work that cannot say itself how far it is: planning, reading and writing files.
#pragma once

#include <condition_variable>
#include <mutex>
#include <string>
#include <thread>

#include "evenspan/core/progress.h"

namespace evenspan::train {

// Shows, from a thread of its own, for how long it has lived, and what is left of the expected seconds (0: unknown).
class Waiting {
 public:
  Waiting(const std::string& what, double expected_seconds, const ProgressSink& sink);
  ~Waiting();
  Waiting(const Waiting&) = delete;
  Waiting& operator=(const Waiting&) = delete;

 private:
  void run(const std::string& what, double expected_seconds, const ProgressSink& sink);

  std::mutex mutex_;
  std::condition_variable changed_;
  bool ended_ = false;
  std::thread thread_;
};

}  // namespace evenspan::train
