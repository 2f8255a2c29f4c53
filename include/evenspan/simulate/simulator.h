// Discrete events over the schedules of all ranks.
//
// A rank has two engines. The compute engine does the steps of its schedule one after another. A step starts when the
// one before it is done and the exchanges that it waits for are complete; an exchange is under way from when its step
// starts, beside the seconds that the step takes the compute engine. Where ranks share cores (Machine::num_cores),
// these divide their time equally among the compute engines that are in a step. The communication engine does the
// rank's exchanges one after another, each from when the program has reached it and the exchange before it is complete,
// as a stream of grouped calls does. All messages of an exchange are under way together. A message begins when both
// ends are at its exchange, takes the latency of the innermost level that holds both ranks, and then moves its bytes.
// They pass the sender's way out and the receiver's way in at that level and, where the level has network cards, a card
// on either side: the ranks of a group are dealt to its cards in order. Each of these ways divides its bandwidth
// equally among the messages that it has not served yet, and a message ends when all its ways have served it. So every
// way is busy while it has something to do, and each carries its load in no less than load / bandwidth; where the
// messages of a way share their narrowest way, or shares are alike, times are those of max-min fairness. Elsewhere a
// wide way may serve a message before a narrow one lets it pass, as buffers would.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "evenspan/simulate/profile.h"
#include "evenspan/simulate/schedule.h"

namespace evenspan::simulate {

enum class Engine : uint8_t { compute, communication };

// What an engine did: a step, or an exchange from its first message's begin to its end.
struct Interval {
  Rank rank;
  Engine engine = Engine::compute;
  std::string_view name;  // of the operation
  int32_t step = 0;       // index in the schedule
  double begin_seconds = 0;
  double end_seconds = 0;
  int64_t sent_bytes = 0;  // by the exchange
  int64_t live_bytes = 0;  // of the arena during the step, where the schedule counts them
};

struct RankUse {
  double finish_seconds = 0;    // when its steps are done and its exchanges complete
  double compute_seconds = 0;   // of its steps, on a core of their own
  double transfer_seconds = 0;  // in which a message from or to it was under way
};

struct Outcome {
  double makespan_seconds = 0;     // the last finish
  std::vector<RankUse> ranks;      // [rank]
  std::vector<Interval> timeline;  // when recorded: by rank, engine and step
};

enum class Timeline : uint8_t { skip, record };

// Immutable; runs are independent of each other and deterministic.
class Simulator {
 public:
  // Throws invalid_argument when the messages of the schedules do not pair up. REQUIRES: one schedule for each rank of
  // a valid machine.
  Simulator(const Machine& machine, std::vector<Schedule> schedules);
  ~Simulator();
  Simulator(Simulator&&) noexcept;
  Simulator& operator=(Simulator&&) noexcept;

  // Each rank begins at its start (empty: all at 0). Throws invalid_argument when ranks wait for each other for ever.
  Outcome run(const std::vector<double>& start_seconds = {}, Timeline timeline = Timeline::skip) const;

  const std::vector<Schedule>& schedules() const;
  const std::vector<int64_t>& sent_bytes_by_level() const;  // [level], all ranks together

 private:
  struct Network;
  std::unique_ptr<const Network> network_;
};

}  // namespace evenspan::simulate
