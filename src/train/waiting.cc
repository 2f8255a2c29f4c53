#include "train/waiting.h"

#include <chrono>

namespace evenspan::train {

Waiting::Waiting(const std::string& what, double expected_seconds, const ProgressSink& sink) {
  if (sink.write) thread_ = std::thread([=, this] { run(what, expected_seconds, sink); });
}

Waiting::~Waiting() {
  {
    const std::lock_guard lock(mutex_);
    ended_ = true;
  }
  changed_.notify_one();
  if (thread_.joinable()) thread_.join();
}

void Waiting::run(const std::string& what, double expected_seconds, const ProgressSink& sink) {
  Progress progress(what, sink);
  std::unique_lock lock(mutex_);
  while (!changed_.wait_for(lock, std::chrono::milliseconds(250), [this] { return ended_; })) {
    progress.expect(expected_seconds);
  }
}

}  // namespace evenspan::train
