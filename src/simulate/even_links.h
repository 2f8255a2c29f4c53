// Links under transfers that all ranks do alike.
#pragma once

#include <algorithm>
#include <map>
#include <utility>
#include <vector>

#include "evenspan/simulate/profile.h"

namespace evenspan::simulate {

// Seconds of such transfers; their bytes, of all ranks together, are added to `by_level`.
class EvenLinks {
 public:
  explicit EvenLinks(const Machine& machine) : machine_(machine) {}

  // Every rank sends `bytes` in equal parts to the other ranks of its group of `group_size`.
  double even(double bytes, int32_t group_size, std::vector<double>* by_level) const {
    double seconds = 0;
    for (size_t l = 0; l < machine_.links.size() && group_size > 1; ++l) {
      const int32_t reached = std::min(size(l), group_size) - std::min(inside(l), group_size);
      if (reached > 0) seconds = std::max(seconds, across(l, bytes * reached / (group_size - 1), by_level));
    }
    return seconds;
  }
  // Every rank sends `bytes` over the outermost level.
  double outermost(double bytes, std::vector<double>* by_level) const {
    return across(machine_.links.size() - 1, bytes, by_level);
  }
  // Every rank sends `bytes` to the next one; a group has one message to another at a time.
  double hop(double bytes, std::vector<double>* by_level) const {
    double seconds = 0;
    const int32_t num_ranks = machine_.topology.num_ranks;
    for (size_t l = 0; l < machine_.links.size() && num_ranks > 1; ++l) {
      const bool last = l + 1 == machine_.links.size();
      const int32_t num_hops = groups(inside(l)) - (last ? 0 : groups(size(l)));
      if (num_hops == 0) continue;
      const Link& link = machine_.links[l];
      const double rate =
          link.cards > 0 ? std::min(link.bytes_per_second, link.card_bytes_per_second) : link.bytes_per_second;
      seconds = std::max(seconds, link.latency_seconds + bytes / rate);
      (*by_level)[l] += bytes * num_hops;
    }
    return seconds;
  }
  // Transfers that are under way together, each from a rank to another.
  class Together {
   public:
    // REQUIRES: `links` outlives it.
    explicit Together(const EvenLinks& links) : links_(&links) {}

    void add(Rank from, Rank to, double bytes, std::vector<double>* by_level) {
      if (bytes <= 0) return;
      const size_t level = links_->machine_.topology.level_between(from, to);
      (*by_level)[level] += bytes;
      const Link& link = links_->machine_.links[level];
      const double rank_bytes = into_[{level, -1 - to.value}] += bytes;
      double seconds = rank_bytes / link.bytes_per_second;
      if (link.cards > 0) {
        const double group_bytes = into_[{level, to / links_->inside(level)}] += bytes;
        seconds = std::max(seconds, group_bytes / link.cards / link.card_bytes_per_second);
      }
      seconds_ = std::max(seconds_, link.latency_seconds + seconds);
    }
    double seconds() const { return seconds_; }

   private:
    const EvenLinks* links_;
    std::map<std::pair<size_t, int32_t>, double> into_;  // a rank (below 0), or a group through its cards
    double seconds_ = 0;
  };
  Together together() const { return Together(*this); }

 private:
  int32_t size(size_t level) const { return machine_.topology.levels[level].group_size; }
  int32_t inside(size_t level) const { return level == 0 ? 1 : size(level - 1); }
  int32_t groups(int32_t group_size) const { return (machine_.topology.num_ranks + group_size - 1) / group_size; }
  double across(size_t level, double bytes, std::vector<double>* by_level) const {
    const Link& link = machine_.links[level];
    (*by_level)[level] += bytes * machine_.topology.num_ranks;
    double seconds = bytes / link.bytes_per_second;
    if (link.cards > 0) {
      seconds = std::max(seconds, bytes * inside(level) / link.cards / link.card_bytes_per_second);
    }
    return link.latency_seconds + seconds;
  }

  const Machine& machine_;
};

}  // namespace evenspan::simulate
