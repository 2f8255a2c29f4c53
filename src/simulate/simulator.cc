#include "evenspan/simulate/simulator.h"

#include <algorithm>
#include <functional>
#include <tuple>

#include "evenspan/core/error.h"
#include "simulate/equal_shares.h"
#include "simulate/min_heap.h"
#include "simulate/network.h"

namespace evenspan::simulate {
namespace {

// Events that are nearer than this are one moment: servers are then brought up to date once.
constexpr double kMomentSeconds = 1e-12;

struct Event {
  enum class Kind : uint8_t { step_done, flow_moves, served };
  double seconds = 0;
  int64_t number = 0;  // events of one time happen in the order in which they were foreseen
  Kind kind = Kind::step_done;
  int32_t id = 0;        // rank, flow or server
  int32_t forecast = 0;  // of served: void unless it is the server's latest
};
struct Earlier {
  bool operator()(const Event& a, const Event& b) const {
    return a.seconds != b.seconds ? a.seconds < b.seconds : a.number < b.number;
  }
};

struct FlowState {
  int32_t num_ready_ends = 0;
  int32_t num_open_ways = 0;  // that have not served it yet
};

// A way, which serves flows, or the cores that ranks share.
struct Server {
  EqualShares shares;
  int32_t forecast = 0;
  bool changed = false;
};

struct ExchangeState {
  int32_t num_open_flows = 0;
  bool complete = false;
  double begin_seconds = -1;  // when its first message began
  int32_t step = 0;
};

struct RankState {
  size_t step = 0;
  bool computing = false;
  size_t interval = 0;  // of what it computes, in a timeline
  bool done = false;
  int32_t num_reached = 0;   // exchanges that the program has reached
  int32_t num_complete = 0;  // exchanges that are complete: they complete in order
  bool exchanging = false;   // exchange number num_complete is on the communication engine
  int32_t num_moving = 0;    // flows under way from or to the rank
  double moving_since = 0;
};

class Events {
 public:
  Events(const FlowNetwork& network, const std::vector<double>& starts, Timeline timeline)
      : network_(network),
        timeline_(timeline),
        ranks_(network.schedules.size()),
        exchanges_(network.rank_of_exchange.size()),
        flows_(network.flows.size()),
        cores_(static_cast<int32_t>(network.way_bytes_per_second.size())) {
    for (const double rate : network.way_bytes_per_second) servers_.push_back({EqualShares(rate)});
    if (network.num_cores > 0) servers_.push_back({EqualShares(network.num_cores, 1)});
    run_.ranks.resize(ranks_.size());
    // A rank begins with the end of a step before its first.
    for (size_t r = 0; r < ranks_.size(); ++r) {
      foresee(starts.empty() ? 0 : starts[r], Event::Kind::step_done, static_cast<int32_t>(r), 0);
    }
  }

  Outcome run() {
    while (!events_.empty()) {
      now_ = events_.top().seconds;
      while (!events_.empty() && events_.top().seconds <= now_ + kMomentSeconds) {
        const Event event = events_.top();
        events_.pop();
        happen(event);
      }
      forecast_servers();
    }
    for (size_t r = 0; r < ranks_.size(); ++r) {
      if (!ranks_[r].done) {
        fail_invalid("[simulate] rank ", r, " waits for ever in step ", ranks_[r].step,
                     "; `evenspan verify` names the ranks that wait for each other");
      }
      run_.makespan_seconds = std::max(run_.makespan_seconds, run_.ranks[r].finish_seconds);
    }
    std::sort(run_.timeline.begin(), run_.timeline.end(), [](const Interval& a, const Interval& b) {
      return std::tie(a.rank, a.engine, a.step) < std::tie(b.rank, b.engine, b.step);
    });
    return std::move(run_);
  }

 private:
  void foresee(double seconds, Event::Kind kind, int32_t id, int32_t forecast) {
    events_.push(Event{seconds, num_events_++, kind, id, forecast});
  }

  void happen(const Event& event) {
    switch (event.kind) {
      case Event::Kind::step_done:
        finish_step(event.id);
        break;
      case Event::Kind::flow_moves:
        join_ways(event.id);
        break;
      case Event::Kind::served:
        if (event.forecast == servers_[static_cast<size_t>(event.id)].forecast) serve(event.id);
        break;
    }
  }

  void finish_step(int32_t rank) {
    ranks_[static_cast<size_t>(rank)].computing = false;
    advance(rank);
  }

  // Does the rank's steps until one takes time or has to wait.
  void advance(int32_t rank) {
    RankState& state = ranks_[static_cast<size_t>(rank)];
    const Schedule& schedule = network_.schedules[static_cast<size_t>(rank)];
    if (state.computing || state.done) return;
    const auto first = static_cast<size_t>(network_.first_exchange[static_cast<size_t>(rank)]);
    for (; state.step < schedule.steps.size(); ++state.step) {
      const TimedOperation& step = schedule.steps[state.step];
      for (const int32_t exchange : step.waits) {
        if (!exchanges_[first + static_cast<size_t>(exchange)].complete) return;
      }
      if (step.exchange >= 0) {
        exchanges_[first + static_cast<size_t>(step.exchange)].step = static_cast<int32_t>(state.step);
        ++state.num_reached;
        start_exchange(rank);
        if (step.seconds == 0) continue;
      }
      state.computing = true;
      run_.ranks[static_cast<size_t>(rank)].compute_seconds += step.seconds;
      if (timeline_ == Timeline::record) {
        state.interval = run_.timeline.size();
        run_.timeline.push_back(Interval{Rank(rank), Engine::compute, step.name, static_cast<int32_t>(state.step), now_,
                                         now_ + step.seconds, 0, step.live_bytes});
      }
      ++state.step;
      if (network_.num_cores == 0) {
        foresee(now_ + step.seconds, Event::Kind::step_done, rank, 0);
      } else {
        change(cores_).add(rank, step.seconds, now_);
      }
      return;
    }
    if (state.num_complete < static_cast<int32_t>(schedule.exchanges.size())) return;
    state.done = true;
    run_.ranks[static_cast<size_t>(rank)].finish_seconds = now_;
  }

  // Puts the rank's next exchange on its communication engine, if the program has reached it.
  void start_exchange(int32_t rank) {
    RankState& state = ranks_[static_cast<size_t>(rank)];
    while (!state.exchanging && state.num_complete < state.num_reached) {
      const int32_t exchange = network_.first_exchange[static_cast<size_t>(rank)] + state.num_complete;
      ExchangeState& started = exchanges_[static_cast<size_t>(exchange)];
      const auto& flows = network_.flows_of[static_cast<size_t>(exchange)];
      started.num_open_flows = static_cast<int32_t>(flows.size());
      state.exchanging = true;
      for (const int32_t flow : flows) {
        if (++flows_[static_cast<size_t>(flow)].num_ready_ends == 2) begin_flow(flow);
      }
      if (flows.empty()) complete_exchange(rank, exchange);
    }
  }

  void begin_flow(int32_t flow) {
    const Flow& fixed = network_.flows[static_cast<size_t>(flow)];
    for (const int32_t exchange : {fixed.from, fixed.to}) {
      ExchangeState& state = exchanges_[static_cast<size_t>(exchange)];
      if (state.begin_seconds < 0) state.begin_seconds = now_;
      RankState& rank = rank_of(exchange);
      if (rank.num_moving++ == 0) rank.moving_since = now_;
    }
    foresee(now_ + fixed.latency_seconds, Event::Kind::flow_moves, flow, 0);
  }

  void join_ways(int32_t flow) {
    const Flow& fixed = network_.flows[static_cast<size_t>(flow)];
    flows_[static_cast<size_t>(flow)].num_open_ways = fixed.num_ways;
    for (int32_t i = 0; i < fixed.num_ways; ++i) {
      change(fixed.ways[static_cast<size_t>(i)]).add(flow, static_cast<double>(fixed.bytes), now_);
    }
  }

  // What the server owes first, and all that is due with it.
  void serve(int32_t number) {
    EqualShares& shares = change(number);
    do {
      const int32_t id = shares.take(now_);
      if (number == cores_) {
        if (timeline_ == Timeline::record) run_.timeline[ranks_[static_cast<size_t>(id)].interval].end_seconds = now_;
        finish_step(id);
      } else if (--flows_[static_cast<size_t>(id)].num_open_ways == 0) {
        end_flow(id);
      }
    } while (shares.another_due());
  }

  // A server's shares, of which something is about to change.
  EqualShares& change(int32_t number) {
    Server& server = servers_[static_cast<size_t>(number)];
    if (!server.changed) changed_servers_.push_back(number);
    server.changed = true;
    return server.shares;
  }

  void forecast_servers() {
    for (const int32_t number : changed_servers_) {
      Server& server = servers_[static_cast<size_t>(number)];
      server.changed = false;
      ++server.forecast;
      if (!server.shares.idle()) foresee(server.shares.first_served(), Event::Kind::served, number, server.forecast);
    }
    changed_servers_.clear();
  }

  void end_flow(int32_t flow) {
    const Flow& fixed = network_.flows[static_cast<size_t>(flow)];
    for (const int32_t exchange : {fixed.from, fixed.to}) {
      const int32_t rank = network_.rank_of_exchange[static_cast<size_t>(exchange)];
      RankState& moving = ranks_[static_cast<size_t>(rank)];
      if (--moving.num_moving == 0) {
        run_.ranks[static_cast<size_t>(rank)].transfer_seconds += now_ - moving.moving_since;
      }
    }
    for (const int32_t exchange : {fixed.from, fixed.to}) {
      if (--exchanges_[static_cast<size_t>(exchange)].num_open_flows > 0) continue;
      const int32_t rank = network_.rank_of_exchange[static_cast<size_t>(exchange)];
      complete_exchange(rank, exchange);
      start_exchange(rank);
      advance(rank);
    }
  }

  void complete_exchange(int32_t rank, int32_t exchange) {
    ExchangeState& state = exchanges_[static_cast<size_t>(exchange)];
    state.complete = true;
    ranks_[static_cast<size_t>(rank)].exchanging = false;
    ++ranks_[static_cast<size_t>(rank)].num_complete;
    if (timeline_ == Timeline::record && state.begin_seconds >= 0) {
      run_.timeline.push_back(Interval{Rank(rank), Engine::communication, plan::Exchange::kTraits.name, state.step,
                                       state.begin_seconds, now_, network_.sent_bytes[static_cast<size_t>(exchange)],
                                       0});
    }
  }

  RankState& rank_of(int32_t exchange) {
    return ranks_[static_cast<size_t>(network_.rank_of_exchange[static_cast<size_t>(exchange)])];
  }

  const FlowNetwork& network_;
  Timeline timeline_;
  std::vector<RankState> ranks_;
  std::vector<ExchangeState> exchanges_;
  std::vector<FlowState> flows_;
  std::vector<Server> servers_;  // the ways by number, and the cores if ranks share them
  int32_t cores_;                // their number
  std::vector<int32_t> changed_servers_;
  MinHeap<Event, Earlier> events_;
  int64_t num_events_ = 0;
  double now_ = 0;
  Outcome run_;
};

}  // namespace

struct Simulator::Network {
  FlowNetwork flows;
};

Simulator::Simulator(const Machine& machine, std::vector<Schedule> schedules)
    : network_(new Network{FlowNetwork(machine, std::move(schedules))}) {}
Simulator::~Simulator() = default;
Simulator::Simulator(Simulator&&) noexcept = default;
Simulator& Simulator::operator=(Simulator&&) noexcept = default;

Outcome Simulator::run(const std::vector<double>& start_seconds, Timeline timeline) const {
  if (!start_seconds.empty()) EVENSPAN_CHECK_EQ(start_seconds.size(), network_->flows.schedules.size());
  return Events(network_->flows, start_seconds, timeline).run();
}

const std::vector<Schedule>& Simulator::schedules() const { return network_->flows.schedules; }

const std::vector<int64_t>& Simulator::sent_bytes_by_level() const { return network_->flows.sent_bytes_by_level; }

}  // namespace evenspan::simulate
