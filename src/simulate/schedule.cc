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
  // `times` serve softmax attention, `pass` the operations of linear attention.
  Pricer(const AttentionShape& shape, const Profile& profile, const AttentionTimes& times, Pass pass)
      : shape_(shape), profile_(profile), times_(times), pass_(pass) {}

  void add(const plan::Operation& operation) {
    TimedOperation step;
    for (const int32_t id : operation.waits) {
      const auto at = exchanges_.find(id);
      if (at == exchanges_.end()) {
        fail_invalid("[simulate] operation ", schedule_.steps.size(), " waits for exchange ", id,
                     ", which no earlier operation starts; `evenspan verify` says what is wrong with the plan");
      }
      step.waits.push_back(at->second);
    }
    std::visit([&](const auto& body) { fill(body, &step); }, operation.body);
    schedule_.steps.push_back(std::move(step));
  }

  Schedule take() { return std::move(schedule_); }

 private:
  void fill(const plan::Exchange& exchange, TimedOperation* step) {
    step->kind = StepKind::exchange;
    step->exchange = static_cast<int32_t>(schedule_.exchanges.size());
    exchanges_[exchange.id] = step->exchange;
    schedule_.exchanges.push_back({transfers(exchange.sends), transfers(exchange.receives)});
  }
  void fill(const plan::Attend& attend, TimedOperation* step) {
    step->kind = StepKind::attend;
    step->seconds = times_.forward.operation_seconds;
    for (const plan::Segment& segment : attend.segments) {
      step->seconds += seconds(segment, Pass::forward);
      if (segment.fold || is_widened(segment.output)) step->seconds += merge(segment.output, Pass::forward);
    }
  }
  void fill(const plan::AttendGradient& attend, TimedOperation* step) {
    step->kind = StepKind::attend_gradient;
    step->seconds = times_.backward.operation_seconds;
    for (const plan::SegmentGradient& segment : attend.segments) {
      step->seconds += seconds(segment.forward, Pass::backward);
      for (const plan::GradientTarget* target : {&segment.grad_query, &segment.grad_key, &segment.grad_value}) {
        if (target->add || is_widened(target->block)) step->seconds += merge(target->block, Pass::backward);
      }
    }
  }
  void fill(const plan::Copy& copy, TimedOperation* step) {
    step->kind = StepKind::copy;
    int64_t bytes = 0;
    for (const auto& [to, from] : copy.pairs) bytes += payload_bytes(to, shape_) + payload_bytes(from, shape_);
    move(bytes, copy.pairs.size(), step);
  }
  void fill(const plan::Accumulate& accumulate, TimedOperation* step) {
    step->kind = StepKind::accumulate;
    int64_t bytes = 0;
    for (const auto& [to, from] : accumulate.pairs) {
      bytes += 2 * payload_bytes(to, shape_) + payload_bytes(from, shape_);
    }
    move(bytes, accumulate.pairs.size(), step);
  }
  void fill(const plan::Merge& merge, TimedOperation* step) {
    step->kind = StepKind::merge;
    int64_t bytes = 0;
    for (const auto& [output, lse, from_output, from_lse] : merge.pairs) {
      bytes += 2 * (payload_bytes(output, shape_) + payload_bytes(lse, shape_));
      bytes += payload_bytes(from_output, shape_) + payload_bytes(from_lse, shape_);
    }
    move(bytes, merge.pairs.size(), step);
  }
  void fill(const plan::Delta& delta, TimedOperation* step) {
    step->kind = StepKind::delta;
    int64_t bytes = 0;
    for (const auto& [to, output, grad_output] : delta.rows) {
      bytes += payload_bytes(to, shape_) + payload_bytes(output, shape_) + payload_bytes(grad_output, shape_);
    }
    move(bytes, delta.rows.size(), step);
  }
  void fill(const plan::Clear& clear, TimedOperation* step) {
    step->kind = StepKind::clear;
    int64_t bytes = 0;
    for (const Block& block : clear.blocks) bytes += payload_bytes(block, shape_);
    move(bytes, clear.blocks.size(), step);
  }

  void fill(const plan::Summarize& summarize, TimedOperation* step) {
    step->kind = StepKind::summarize;
    for (const plan::PartSummary& part : summarize.parts) {
      step->seconds += seconds(linear_flops(shape_, part.part.rows.size(), pass_).summarize);
    }
  }
  void fill(const plan::Combine& combine, TimedOperation* step) {
    step->kind = StepKind::combine;
    const int64_t key_dim = shape_.head_dim;
    int64_t bytes = 0;
    double flops = 0;
    for (const plan::Composition& c : combine.compositions) {
      bytes += payload_bytes(c.to, shape_) + payload_bytes(c.far, shape_) + payload_bytes(c.near, shape_);
      if (shape_.state.transition != plan::Transition::dense) continue;
      const int64_t columns = shape_.state.value_dim + (c.to_transition ? key_dim : 0);
      flops += 2.0 * static_cast<double>(c.near.heads.size() * key_dim * key_dim * columns);
    }
    move(bytes, combine.compositions.size(), step);
    step->seconds += seconds(flops);
  }
  void fill(const plan::Intra& intra, TimedOperation* step) {
    step->kind = StepKind::intra;
    for (const plan::IntraPart& part : intra.parts) {
      const LinearFlops flops = linear_flops(shape_, part.part.rows.size(), pass_);
      step->seconds += seconds(flops.intra + (part.pending ? 0 : flops.apply));
    }
  }
  void fill(const plan::Apply& apply, TimedOperation* step) {
    step->kind = StepKind::apply;
    for (const plan::ApplyPart& part : apply.parts) {
      step->seconds += seconds(linear_flops(shape_, part.part.rows.size(), pass_).apply);
    }
  }

  double seconds(double flops) const {
    return flops / (pass_ == Pass::forward ? profile_.forward_flops_per_second : profile_.backward_flops_per_second);
  }
  double seconds(const plan::Segment& segment, Pass pass) const {
    return segment_seconds(times_, pass, segment.kind, segment.query.rows.size(), segment.key.rows.size(),
                           segment.query.heads.size());
  }
  // Whether a kernel's result, which has the input's type, is converted.
  bool is_widened(const Block& block) const {
    return block.precision == plan::Precision::accumulation &&
           plan::accumulation_type(shape_.element) != shape_.element;
  }
  double merge(const Block& block, Pass pass) const {
    const PassTimes& times = times_.times(pass);
    return times.merge_seconds + times.merge_row_seconds * static_cast<double>(block.rows.size()) * block.heads.size();
  }
  void move(int64_t bytes, size_t num_pairs, TimedOperation* step) const {
    step->seconds = profile_.memory_operation_seconds + profile_.memory_pair_seconds * static_cast<double>(num_pairs) +
                    static_cast<double>(bytes) / profile_.memory_bytes_per_second;
  }
  std::vector<MessageBytes> transfers(const std::vector<plan::Message>& messages) const {
    std::vector<MessageBytes> list;
    list.reserve(messages.size());
    for (const plan::Message& message : messages) {
      int64_t bytes = 0;
      for (const Block& block : message.blocks) bytes += payload_bytes(block, shape_);
      list.push_back(MessageBytes{message.peer, bytes});
    }
    return list;
  }

  const AttentionShape& shape_;
  const Profile& profile_;
  const AttentionTimes& times_;
  Pass pass_;
  Schedule schedule_;
  std::map<int32_t, int32_t> exchanges_;  // by id in the program
};

}  // namespace

std::string_view to_string(StepKind kind) {
  switch (kind) {
    case StepKind::exchange:
      return "exchange";
    case StepKind::attend:
      return "attend";
    case StepKind::attend_gradient:
      return "attend_gradient";
    case StepKind::copy:
      return "copy";
    case StepKind::accumulate:
      return "accumulate";
    case StepKind::merge:
      return "merge";
    case StepKind::delta:
      return "delta";
    case StepKind::clear:
      return "clear";
    case StepKind::summarize:
      return "summarize";
    case StepKind::combine:
      return "combine";
    case StepKind::intra:
      return "intra";
    case StepKind::apply:
      return "apply";
  }
  return "";
}

LinearFlops linear_flops(const AttentionShape& shape, int64_t rows, Pass pass) {
  constexpr double kChunk = 64;
  const auto n = static_cast<double>(rows) * shape.num_heads;
  const double keys = shape.head_dim, values = shape.state.value_dim;
  const double state = 2 * n * keys * values, scores = 2 * n * kChunk * (keys + values);
  // Delta rules: scores among keys, two triangular solves, and products of the state with the solved keys.
  const bool dense = shape.state.transition == plan::Transition::dense;
  const double solve = dense ? 2 * n * kChunk * (2 * keys + values) : 0;
  const LinearFlops forward{dense ? solve + 2 * state + 4 * n * keys * keys : state, scores + solve,
                            dense ? 3 * state : 2 * state};
  if (pass == Pass::forward) return forward;
  return {dense ? solve + 3 * state : state, 2.5 * forward.intra, 2.5 * forward.apply};
}

namespace {

Schedule price(Pricer pricer, const plan::Program& program, const AttentionShape& shape, LiveBytes live_bytes) {
  for (const plan::Operation& operation : program.operations) pricer.add(operation);
  Schedule schedule = pricer.take();
  if (live_bytes == LiveBytes::count) {
    const std::vector<int64_t> counted = count_live_bytes(program, shape);
    for (size_t i = 0; i < counted.size(); ++i) schedule.steps[i].live_bytes = counted[i];
  }
  return schedule;
}

}  // namespace

Schedule price(const plan::Program& program, const AttentionShape& shape, const Profile& profile,
               const AttentionTimes& times, LiveBytes live_bytes) {
  return price(Pricer(shape, profile, times, Pass::forward), program, shape, live_bytes);
}

Schedule price_linear(const plan::Program& program, const AttentionShape& shape, const Profile& profile, Pass pass,
                      LiveBytes live_bytes) {
  const AttentionTimes none;
  return price(Pricer(shape, profile, none, pass), program, shape, live_bytes);
}

}  // namespace evenspan::simulate
