// A layer's attention in one pass, as far as it is known without programs: rounds of tiles, and what ranks exchange
// before and behind them.
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "evenspan/simulate/profile.h"

namespace evenspan::simulate {

// No rank is held up by more than what it waits for at least: a message between two ranks begins when both are in the
// pass, or are done with what it leaves behind, takes its latency, and moves at the whole bandwidth of one rank, which
// all messages of a rank at a level share.
class PassBound {
 public:
  // Rounds are numbered in the order in which the pass runs them.
  PassBound(const Machine& machine, int32_t num_rounds);

  // What the rank computes in the round, at its end `held` seconds that wait for what arrives, and `later` seconds that
  // nothing waits for which leaves behind the round.
  void compute(int32_t rank, int32_t round, double seconds, double held, double later);
  // Seconds at the end of the pass, behind what the rounds wait for; what leaves a rank does not wait for them.
  void unpack(int32_t rank, double seconds) { ranks_[static_cast<size_t>(rank)].unpack = seconds; }
  // Seconds that the rank computes besides, at some time of the pass.
  void add_compute(int32_t rank, double seconds) { ranks_[static_cast<size_t>(rank)].compute += seconds; }
  // Bytes that both ranks wait for in the round; one behind the last is there too.
  void arrive(int32_t round, Rank from, Rank to, size_t level, double bytes) {
    arriving_[static_cast<size_t>(round)].add(machine_, from, to, level, bytes);
  }
  // Bytes that leave when the rounds before `round` are done on both ranks.
  void leave_before(int32_t round, Rank from, Rank to, size_t level, double bytes) {
    leaving_[static_cast<size_t>(round)].add(machine_, from, to, level, bytes);
  }

  // Once all is added.
  void close();
  // Each rank begins at (*now)[rank], and ends at what that becomes, at least. A rank that begins at -HUGE_VAL holds up
  // nobody.
  void run(std::vector<double>* now) { run(now, Others::as_they_are); }
  // What the pass takes each rank at least, wherever the others are.
  std::vector<double> seconds_alone();
  // What the rank computes in a run.
  double compute_seconds(size_t rank) const { return ranks_[rank].compute; }

 private:
  enum class Others : uint8_t { as_they_are, ready };
  void run(std::vector<double>* now, Others others);

  // Between two ranks, of one round.
  struct Flow {
    int32_t from, to;
    double seconds;
  };
  // Traffic is counted from where all messages of a rank may share a way: those that arrive from the first, those that
  // leave from the last.
  struct Traffic {
    void add(const Machine& machine, Rank from, Rank to, size_t level, double bytes);
    // Adds its bytes to those of the traffic before.
    void close(const Machine& machine, std::vector<double>* all_bytes);
    // Messages begin at `ready`, of each of their ranks; *end becomes when they have ended, if that is later.
    void run(const std::vector<double>& ready, Others others, std::vector<double>* end) const;

    std::vector<double> bytes;                      // [level, out and in, rank], until it is closed
    std::vector<std::pair<int32_t, double>> whole;  // ranks, and seconds of all their messages up to this round
    std::vector<Flow> flows;
  };
  struct RoundOfRank {
    double seconds = 0, held = 0, later = 0;
  };
  struct RankTimes {
    double compute = 0, unpack = 0;
  };

  const Machine& machine_;
  const size_t num_ranks_;
  std::vector<RoundOfRank> rounds_;  // [round][rank]
  std::vector<RankTimes> ranks_;
  std::vector<Traffic> arriving_, leaving_;              // [round], and one behind the last
  std::vector<double> arrived_, done_, left_, reached_;  // [rank], of a run
};

}  // namespace evenspan::simulate
