// Something that divides its rate equally among those that it serves: a way its bytes among messages, cores their
// seconds among ranks that compute.
#pragma once

#include <algorithm>
#include <cmath>
#include <compare>
#include <cstdint>
#include <functional>

#include "simulate/min_heap.h"

namespace evenspan::simulate {

class EqualShares {
 public:
  // `most_each`: what one is served at most in a second.
  explicit EqualShares(double per_second, double most_each = HUGE_VAL)
      : per_second_(per_second), most_each_(most_each) {}

  bool idle() const { return due_.empty(); }
  // Calls come in the order of `now`. One that is there is not added again before it is taken.
  void add(int32_t id, double amount, double now) {
    count(now);
    due_.push({served_ + amount, id});
  }
  // When the first one is served if none joins. REQUIRES: not idle.
  double first_served() const { return counted_seconds_ + std::max(0.0, due_.top().served - served_) / rate(); }
  // Takes the first one, whatever it lacks. REQUIRES: not idle.
  int32_t take(double now) {
    count(now);
    served_ = due_.top().served;
    const int32_t id = due_.top().id;
    due_.pop();
    return id;
  }
  // Whether the next one is due with the one that was taken last.
  bool another_due() const { return !due_.empty() && due_.top().served <= served_; }

 private:
  // It has served `served_` of each one that was there from the start; one that joins at s is served when s plus its
  // own amount is reached.
  struct Due {
    double served;
    int32_t id;
    friend auto operator<=>(const Due&, const Due&) = default;
  };

  double rate() const { return std::min(most_each_, per_second_ / static_cast<double>(due_.size())); }
  void count(double now) {
    if (!due_.empty()) served_ += (now - counted_seconds_) * rate();
    counted_seconds_ = now;
  }

  double per_second_, most_each_;
  MinHeap<Due, std::less<>> due_;
  double served_ = 0;
  double counted_seconds_ = 0;  // when served_ was true
};

}  // namespace evenspan::simulate
