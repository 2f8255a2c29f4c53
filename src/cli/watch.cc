#include "cli/watch.h"

#include <algorithm>
#include <chrono>

namespace evenspan::cli {

Watch::Watch(const std::string& command, bool quiet) : command_(command), quiet_(quiet) {
  if (!quiet_) thread_ = std::thread([this] { look(); });
}

Watch::~Watch() { stop(); }

WorkPart Watch::work() {
  return WorkPart([this](double done) {
    const std::lock_guard lock(mutex_);
    done_ = std::max(done_, done);
  });
}

void Watch::stop() {
  {
    const std::lock_guard lock(mutex_);
    stopped_ = true;
  }
  stopping_.notify_all();
  if (thread_.joinable()) thread_.join();
}

void Watch::look() {
  constexpr std::chrono::milliseconds kBetween(500);
  Progress progress(command_);
  std::unique_lock lock(mutex_);
  while (!stopping_.wait_for(lock, kBetween, [this] { return stopped_; })) progress.at(done_, 1);
}

}  // namespace evenspan::cli
