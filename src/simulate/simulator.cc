#include "evenspan/simulate/simulator.h"

#include <algorithm>
#include <limits>
#include <queue>

#include "evenspan/core/error.h"
#include "simulate/network.h"

namespace evenspan::simulate {
namespace {

// Events that are nearer than this count as one moment: shares are then computed once.
constexpr double kMomentSeconds = 1e-12;

struct Event {
  enum class Kind : uint8_t { step_done, flow_moves, flow_done };
  double seconds = 0;
  int64_t number = 0;  // events of one time happen in the order in which they were foreseen
  Kind kind = Kind::step_done;
  int32_t id = 0;        // rank or flow
  int32_t forecast = 0;  // of flow_done: void unless it is the flow's latest
};
struct Later {
  bool operator()(const Event& a, const Event& b) const {
    return a.seconds != b.seconds ? a.seconds > b.seconds : a.number > b.number;
  }
};

struct FlowState {
  int32_t num_ready_ends = 0;
  double left_bytes = 0;
  double bytes_per_second = 0;
  double counted_seconds = 0;  // when left_bytes was true
  int32_t forecast = 0;
  std::array<int32_t, 4> places{};  // in the lists of its resources
  int64_t moment = -1;              // when its share was computed last
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
        users_(network.resource_bytes_per_second.size()),
        is_changed_(network.resource_bytes_per_second.size(), 0) {
    run_.ranks.resize(ranks_.size());
    for (size_t f = 0; f < flows_.size(); ++f) flows_[f].left_bytes = static_cast<double>(network.flows[f].bytes);
    // A rank begins with the end of a step before its first.
    for (size_t r = 0; r < ranks_.size(); ++r) {
      foresee(starts.empty() ? 0 : starts[r], Event::Kind::step_done, static_cast<int32_t>(r), 0);
    }
  }

  Run run() {
    while (!events_.empty()) {
      now_ = events_.top().seconds;
      ++moment_;
      while (!events_.empty() && events_.top().seconds <= now_ + kMomentSeconds) {
        const Event event = events_.top();
        events_.pop();
        happen(event);
      }
      share();
    }
    for (size_t r = 0; r < ranks_.size(); ++r) {
      if (!ranks_[r].done) {
        fail_invalid("[simulate] rank ", r, " waits for ever in step ", ranks_[r].step,
                     "; `evenspan verify` names the ranks that wait for each other");
      }
      run_.makespan_seconds = std::max(run_.makespan_seconds, run_.ranks[r].finish_seconds);
    }
    return std::move(run_);
  }

 private:
  void foresee(double seconds, Event::Kind kind, int32_t id, int32_t forecast) {
    events_.push(Event{seconds, num_events_++, kind, id, forecast});
  }

  void happen(const Event& event) {
    switch (event.kind) {
      case Event::Kind::step_done:
        ranks_[static_cast<size_t>(event.id)].computing = false;
        advance(event.id);
        break;
      case Event::Kind::flow_moves:
        join_resources(event.id);
        break;
      case Event::Kind::flow_done:
        if (event.forecast == flows_[static_cast<size_t>(event.id)].forecast) end_flow(event.id);
        break;
    }
  }

  // Does the rank's steps until one takes time or has to wait.
  void advance(int32_t rank) {
    RankState& state = ranks_[static_cast<size_t>(rank)];
    const Schedule& schedule = network_.schedules[static_cast<size_t>(rank)];
    if (state.computing || state.done) return;
    const int32_t first = network_.first_exchange[static_cast<size_t>(rank)];
    for (; state.step < schedule.steps.size(); ++state.step) {
      const Step& step = schedule.steps[state.step];
      for (const int32_t exchange : step.waits) {
        if (!exchanges_[static_cast<size_t>(first + exchange)].complete) return;
      }
      if (step.kind == StepKind::exchange) {
        exchanges_[static_cast<size_t>(first + step.exchange)].step = static_cast<int32_t>(state.step);
        ++state.num_reached;
        start_exchange(rank);
        continue;
      }
      state.computing = true;
      run_.ranks[static_cast<size_t>(rank)].compute_seconds += step.seconds;
      if (timeline_ == Timeline::record) {
        run_.timeline.push_back(Interval{Rank(rank), Engine::compute, step.kind, static_cast<int32_t>(state.step), now_,
                                         now_ + step.seconds, 0, step.live_bytes});
      }
      ++state.step;
      foresee(now_ + step.seconds, Event::Kind::step_done, rank, 0);
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

  void join_resources(int32_t flow) {
    const Flow& fixed = network_.flows[static_cast<size_t>(flow)];
    FlowState& state = flows_[static_cast<size_t>(flow)];
    state.counted_seconds = now_;
    for (int32_t i = 0; i < fixed.num_resources; ++i) {
      const auto at = static_cast<size_t>(i);
      auto& users = users_[static_cast<size_t>(fixed.resources[at])];
      state.places[at] = static_cast<int32_t>(users.size());
      users.push_back({flow, i});
      change(fixed.resources[at]);
    }
  }

  void end_flow(int32_t flow) {
    const Flow& fixed = network_.flows[static_cast<size_t>(flow)];
    FlowState& state = flows_[static_cast<size_t>(flow)];
    ++state.forecast;
    for (int32_t i = 0; i < fixed.num_resources; ++i) {
      const auto at = static_cast<size_t>(i);
      auto& users = users_[static_cast<size_t>(fixed.resources[at])];
      users[static_cast<size_t>(state.places[at])] = users.back();
      const User& moved = users.back();
      flows_[static_cast<size_t>(moved.flow)].places[static_cast<size_t>(moved.place)] = state.places[at];
      users.pop_back();
      change(fixed.resources[at]);
    }
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
      run_.timeline.push_back(Interval{Rank(rank), Engine::communication, StepKind::exchange, state.step,
                                       state.begin_seconds, now_, network_.sent_bytes[static_cast<size_t>(exchange)],
                                       0});
    }
  }

  void change(int32_t resource) {
    if (is_changed_[static_cast<size_t>(resource)]) return;
    is_changed_[static_cast<size_t>(resource)] = 1;
    changed_.push_back(resource);
  }

  // New rates for the flows of all resources whose users changed.
  void share() {
    for (const int32_t resource : changed_) {
      is_changed_[static_cast<size_t>(resource)] = 0;
      for (const User& user : users_[static_cast<size_t>(resource)]) renew(user.flow);
    }
    changed_.clear();
  }

  void renew(int32_t flow) {
    FlowState& state = flows_[static_cast<size_t>(flow)];
    if (state.moment == moment_) return;
    state.moment = moment_;
    const Flow& fixed = network_.flows[static_cast<size_t>(flow)];
    double rate = std::numeric_limits<double>::max();
    for (int32_t i = 0; i < fixed.num_resources; ++i) {
      const auto resource = static_cast<size_t>(fixed.resources[static_cast<size_t>(i)]);
      rate =
          std::min(rate, network_.resource_bytes_per_second[resource] / static_cast<double>(users_[resource].size()));
    }
    if (rate == state.bytes_per_second) return;
    state.left_bytes = std::max(0.0, state.left_bytes - state.bytes_per_second * (now_ - state.counted_seconds));
    state.counted_seconds = now_;
    state.bytes_per_second = rate;
    foresee(now_ + state.left_bytes / rate, Event::Kind::flow_done, flow, ++state.forecast);
  }

  RankState& rank_of(int32_t exchange) {
    return ranks_[static_cast<size_t>(network_.rank_of_exchange[static_cast<size_t>(exchange)])];
  }

  struct User {
    int32_t flow;
    int32_t place;  // of the resource in the flow's list
  };

  const FlowNetwork& network_;
  Timeline timeline_;
  std::vector<RankState> ranks_;
  std::vector<ExchangeState> exchanges_;
  std::vector<FlowState> flows_;
  std::vector<std::vector<User>> users_;  // [resource]
  std::vector<char> is_changed_;          // [resource]
  std::vector<int32_t> changed_;
  std::priority_queue<Event, std::vector<Event>, Later> events_;
  int64_t num_events_ = 0;
  int64_t moment_ = 0;
  double now_ = 0;
  Run run_;
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

Run Simulator::run(const std::vector<double>& start_seconds, Timeline timeline) const {
  if (!start_seconds.empty()) EVENSPAN_CHECK_EQ(start_seconds.size(), network_->flows.schedules.size());
  return Events(network_->flows, start_seconds, timeline).run();
}

const std::vector<Schedule>& Simulator::schedules() const { return network_->flows.schedules; }

const std::vector<int64_t>& Simulator::sent_bytes_by_level() const { return network_->flows.sent_bytes_by_level; }

}  // namespace evenspan::simulate
