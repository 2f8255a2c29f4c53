// Ranks that compute on fewer cores than there are ranks: cores divide their time equally among the ranks that compute,
// and none computes faster than on a core of its own.
#pragma once

#include <algorithm>
#include <compare>
#include <cstdint>
#include <functional>
#include <queue>
#include <vector>

namespace evenspan::simulate {

class SharedCores {
 public:
  explicit SharedCores(int32_t num_cores) : num_cores_(num_cores) {}

  bool idle() const { return due_.empty(); }
  // Calls come in the order of `now`. A rank that is there is not added again before it is taken.
  void add(int32_t rank, double seconds, double now) {
    count(now);
    due_.push({served_seconds_ + seconds, rank});
  }
  // When the first rank is done if none joins. REQUIRES: not idle.
  double first_done() const {
    return counted_seconds_ + std::max(0.0, due_.top().served_seconds - served_seconds_) / rate();
  }
  // Takes the rank that is done first, whatever is left of it. REQUIRES: not idle.
  int32_t take(double now) {
    count(now);
    served_seconds_ = std::max(served_seconds_, due_.top().served_seconds);
    const int32_t rank = due_.top().rank;
    due_.pop();
    return rank;
  }

 private:
  // Served so much since the start, a rank that joined at s with t to do is done at s + t.
  struct Due {
    double served_seconds;
    int32_t rank;
    friend auto operator<=>(const Due&, const Due&) = default;
  };

  double rate() const { return std::min(1.0, num_cores_ / static_cast<double>(due_.size())); }
  void count(double now) {
    if (!due_.empty()) served_seconds_ += (now - counted_seconds_) * rate();
    counted_seconds_ = now;
  }

  int32_t num_cores_;
  std::priority_queue<Due, std::vector<Due>, std::greater<>> due_;
  double served_seconds_ = 0;
  double counted_seconds_ = 0;  // when served_seconds_ was true
};

}  // namespace evenspan::simulate
