// Plans by their input, and the next one made in the background while the current one runs.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "evenspan/plan/plan.h"

namespace evenspan::plan {

// The plans of a batch, one for each kind of the model's layers; not empty, and none null.
using LayerPlans = std::vector<std::shared_ptr<const Plan>>;

// Makes plans by a function of the request and keeps the ones used last. One thread of its own plans what prefetch()
// asks for; it starts with the first such call. Any number of threads may call.
class PlanCache {
 public:
  using Make = std::function<LayerPlans(const Request&)>;

  struct Counts {
    int64_t made = 0;        // inputs planned, failed attempts not counted
    int64_t made_ahead = 0;  // of these, by prefetch()
    int64_t hits = 0;        // inputs asked for, by prefetch() or by get() alone, whose plans were there
    int64_t ready = 0;       // calls of get() that neither planned nor waited
    int64_t waits = 0;       // calls of get() that did
  };

  // `make` is called from any thread, several at once for different inputs. REQUIRES: capacity >= 1; the plans of so
  // many inputs are kept, those under way not counted.
  PlanCache(Make make, size_t capacity);
  // Waits for what is under way; drops what has not begun.
  ~PlanCache();
  PlanCache(const PlanCache&) = delete;
  PlanCache& operator=(const PlanCache&) = delete;

  // Begins to make the plans of the input unless they are there or under way. Never waits and never throws what `make`
  // throws: get() does.
  void prefetch(const Request& request);

  // The plans of the input: from the cache, from a prefetch (waiting for its end), or made here. Throws what `make`
  // threw; the next call for the input tries again.
  LayerPlans get(const Request& request);

  // The plans of at least so many inputs are kept from here on.
  void reserve(size_t capacity);

  Counts counts() const;

 private:
  class State;
  std::unique_ptr<State> state_;
};

// Of what a plan is made from; equal for equal requests.
uint64_t hash_of(const Request& request);

}  // namespace evenspan::plan
