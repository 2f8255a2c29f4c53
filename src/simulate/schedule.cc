#include "evenspan/simulate/schedule.h"

#include <map>

#include "evenspan/core/error.h"
#include "plan/visit.h"
#include "simulate/live_bytes.h"

namespace evenspan::simulate {
namespace {

using plan::AttentionShape;
using plan::Block;
using plan::payload_bytes;

class Pricer {
 public:
  // `times` serve softmax attention.
  Pricer(const AttentionShape& shape, const Profile& profile, const AttentionTimes& times)
      : shape_(shape), profile_(profile), times_(times) {}

  void add(const plan::Operation& operation) {
    TimedOperation step;
    step.name = plan::name(operation);
    for (const plan::Event event : operation.waits) {
      const auto at = exchanges_.find(event);
      if (at == exchanges_.end()) {
        fail_invalid("[simulate] operation ", schedule_.steps.size(), " waits for event ", event,
                     ", which no earlier operation signals; `evenspan verify` says what is wrong with the plan");
      }
      step.waits.push_back(at->second);
    }
    if (const auto* exchange = std::get_if<plan::Exchange>(&operation.body)) {
      step.exchange = static_cast<int32_t>(schedule_.exchanges.size());
      exchanges_[operation.signals] = step.exchange;
      schedule_.exchanges.push_back(traffic(*exchange));
    } else {
      step.seconds = std::visit([this](const auto& body) { return seconds_of(body); }, operation.body);
    }
    schedule_.steps.push_back(std::move(step));
  }

  Schedule take() { return std::move(schedule_); }

 private:
  double seconds_of(const plan::Attend& attend) const {
    double seconds = times_.forward.operation_seconds;
    for (const plan::ForwardSegment& segment : attend.items) {
      seconds += kernel_seconds(segment, Pass::forward);
      if (segment.fold || is_widened(segment.output)) seconds += merge_seconds(segment.output, Pass::forward);
    }
    return seconds;
  }
  double seconds_of(const plan::AttendGradient& attend) const {
    double seconds = times_.backward.operation_seconds;
    for (const plan::BackwardSegment& segment : attend.items) {
      seconds += kernel_seconds(segment, Pass::backward);
      for (const plan::GradientTarget* target : {&segment.grad_query, &segment.grad_key, &segment.grad_value}) {
        if (target->add || is_widened(target->block)) seconds += merge_seconds(target->block, Pass::backward);
      }
    }
    return seconds;
  }

  double seconds_of(const plan::Summarize& summarize) const {
    return sum(
        summarize.items, [&](const auto& item) { return flops(item, Pass::forward).summarize; }, Pass::forward);
  }
  double seconds_of(const plan::SummarizeGradient& summarize) const {
    return sum(
        summarize.items, [&](const auto& item) { return flops(item, Pass::backward).summarize; }, Pass::backward);
  }
  double seconds_of(const plan::Intra& intra) const { return intra_seconds(intra.items, Pass::forward); }
  double seconds_of(const plan::IntraGradient& intra) const { return intra_seconds(intra.items, Pass::backward); }
  double seconds_of(const plan::Apply& apply) const {
    return sum(
        apply.items, [&](const auto& item) { return flops(item, Pass::forward).apply; }, Pass::forward);
  }
  double seconds_of(const plan::ApplyGradient& apply) const {
    return sum(
        apply.items, [&](const auto& item) { return flops(item, Pass::backward).apply; }, Pass::backward);
  }
  double seconds_of(const plan::Combine& combine) const { return combine_seconds(combine.items, Pass::forward); }
  double seconds_of(const plan::CombineGradient& combine) const {
    return combine_seconds(combine.items, Pass::backward);
  }

  // Of operations that move memory and compute next to nothing: what they read and write.
  template <class Body>
  double seconds_of(const Body& body) const {
    int64_t bytes = 0;
    for (const auto& item : body.items) {
      plan::for_each_block_of<Body>(item, shape_, [&](const Block& block, plan::Access access) {
        bytes += payload_bytes(block, shape_) * (access == plan::Access::update ? 2 : 1);
      });
    }
    return memory_seconds(bytes, body.items.size());
  }

  template <class Items, class F>
  double sum(const Items& items, F&& flops_of, Pass pass) const {
    double seconds = 0;
    for (const auto& item : items) seconds += flops_seconds(flops_of(item), pass);
    return seconds;
  }
  template <class Item>
  LinearFlops flops(const Item& item, Pass pass) const {
    return linear_flops(shape_, item.part.rows.size(), pass);
  }
  template <class Items>
  double intra_seconds(const Items& items, Pass pass) const {
    const auto of_part = [&](const auto& item) {
      const LinearFlops of = flops(item, pass);
      return of.intra + (item.pending ? 0 : of.apply);
    };
    return sum(items, of_part, pass);
  }
  double combine_seconds(const std::vector<plan::Composition>& compositions, Pass pass) const {
    const int64_t key_dim = shape_.head_dim;
    int64_t bytes = 0;
    double flops = 0;
    for (const plan::Composition& c : compositions) {
      bytes += payload_bytes(c.to, shape_) + payload_bytes(c.far, shape_) + payload_bytes(c.near, shape_);
      if (shape_.state.transition() != plan::Transition::dense) continue;
      const int64_t columns = shape_.state.value_dim + (c.to_transition ? key_dim : 0);
      flops += 2.0 * static_cast<double>(c.near.heads.size() * key_dim * key_dim * columns);
    }
    return memory_seconds(bytes, compositions.size()) + flops_seconds(flops, pass);
  }

  double flops_seconds(double flops, Pass pass) const {
    return flops / (pass == Pass::forward ? profile_.forward_flops_per_second : profile_.backward_flops_per_second);
  }
  double kernel_seconds(const plan::Segment& segment, Pass pass) const {
    return segment_seconds(times_, pass, segment.kind, segment.query.rows.size(), segment.key.rows.size(),
                           segment.query.heads.size());
  }
  // Whether a kernel's result, which has the input's type, is converted.
  bool is_widened(const Block& block) const {
    return block.precision == plan::Precision::accumulation &&
           plan::accumulation_type(shape_.element) != shape_.element;
  }
  double merge_seconds(const Block& block, Pass pass) const {
    const PassTimes& times = times_.times(pass);
    return times.merge_seconds + times.merge_row_seconds * static_cast<double>(block.rows.size()) * block.heads.size();
  }
  double memory_seconds(int64_t bytes, size_t num_items) const {
    return profile_.memory_operation_seconds + profile_.memory_pair_seconds * static_cast<double>(num_items) +
           static_cast<double>(bytes) / profile_.memory_bytes_per_second;
  }
  ExchangeTraffic traffic(const plan::Exchange& exchange) const {
    ExchangeTraffic traffic;
    for (const plan::Message& message : exchange.items) {
      int64_t bytes = 0;
      for (const Block& block : message.blocks) bytes += payload_bytes(block, shape_);
      auto& list = message.direction == plan::Direction::send ? traffic.sends : traffic.receives;
      list.push_back(MessageBytes{message.peer, bytes});
    }
    return traffic;
  }

  const AttentionShape& shape_;
  const Profile& profile_;
  const AttentionTimes& times_;
  Schedule schedule_;
  std::map<plan::Event, int32_t> exchanges_;  // by what they signal
};

}  // namespace

LinearFlops linear_flops(const AttentionShape& shape, int64_t rows, Pass pass) {
  constexpr double kChunk = 64;
  const auto n = static_cast<double>(rows) * shape.num_heads;
  const double keys = shape.head_dim, values = shape.state.value_dim;
  const double state = 2 * n * keys * values, scores = 2 * n * kChunk * (keys + values);
  // Delta rules: scores among keys, two triangular solves, and products of the state with the solved keys.
  const bool dense = shape.state.transition() == plan::Transition::dense;
  const double solve = dense ? 2 * n * kChunk * (2 * keys + values) : 0;
  const LinearFlops forward{dense ? solve + 2 * state + 4 * n * keys * keys : state, scores + solve,
                            dense ? 3 * state : 2 * state};
  if (pass == Pass::forward) return forward;
  return {dense ? solve + 3 * state : state, 2.5 * forward.intra, 2.5 * forward.apply};
}

namespace {

Schedule price(Pricer pricer, const plan::Phase& program, const AttentionShape& shape, LiveBytes live_bytes) {
  for (const plan::Operation& operation : program.operations) pricer.add(operation);
  Schedule schedule = pricer.take();
  if (live_bytes == LiveBytes::count) {
    const std::vector<int64_t> counted = count_live_bytes(program, shape);
    for (size_t i = 0; i < counted.size(); ++i) schedule.steps[i].live_bytes = counted[i];
  }
  return schedule;
}

}  // namespace

Schedule price(const plan::Phase& program, const AttentionShape& shape, const Profile& profile,
               const AttentionTimes& times, LiveBytes live_bytes) {
  return price(Pricer(shape, profile, times), program, shape, live_bytes);
}

Schedule price_linear(const plan::Phase& program, const AttentionShape& shape, const Profile& profile,
                      LiveBytes live_bytes) {
  const AttentionTimes none;
  return price(Pricer(shape, profile, none), program, shape, live_bytes);
}

}  // namespace evenspan::simulate
