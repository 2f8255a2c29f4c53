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
  Pricer(const AttentionShape& shape, const Profile& profile, const AttentionTimes& times)
      : shape_(shape), profile_(profile), times_(times) {}

  void add(const plan::Operation& operation) {
    Step step;
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
  void fill(const plan::Exchange& exchange, Step* step) {
    step->kind = StepKind::exchange;
    step->exchange = static_cast<int32_t>(schedule_.exchanges.size());
    exchanges_[exchange.id] = step->exchange;
    schedule_.exchanges.push_back({transfers(exchange.sends), transfers(exchange.receives)});
    for (const auto* list : {&schedule_.exchanges.back().sends, &schedule_.exchanges.back().receives}) {
      for (const Transfer& transfer : *list) {
        step->seconds +=
            profile_.exchange_message_seconds + profile_.exchange_byte_seconds * static_cast<double>(transfer.bytes);
      }
    }
  }
  void fill(const plan::Attend& attend, Step* step) {
    step->kind = StepKind::attend;
    step->seconds = times_.forward.operation_seconds;
    for (const plan::Segment& segment : attend.segments) {
      step->seconds += seconds(segment, Pass::forward);
      if (segment.fold || is_widened(segment.output)) step->seconds += merge(segment.output, Pass::forward);
    }
  }
  void fill(const plan::AttendGradient& attend, Step* step) {
    step->kind = StepKind::attend_gradient;
    step->seconds = times_.backward.operation_seconds;
    for (const plan::SegmentGradient& segment : attend.segments) {
      step->seconds += seconds(segment.forward, Pass::backward);
      for (const plan::GradientTarget* target : {&segment.grad_query, &segment.grad_key, &segment.grad_value}) {
        if (target->add || is_widened(target->block)) step->seconds += merge(target->block, Pass::backward);
      }
    }
  }
  void fill(const plan::Copy& copy, Step* step) {
    step->kind = StepKind::copy;
    int64_t bytes = 0;
    for (const auto& [to, from] : copy.pairs) bytes += payload_bytes(to, shape_) + payload_bytes(from, shape_);
    move(bytes, copy.pairs.size(), step);
  }
  void fill(const plan::Accumulate& accumulate, Step* step) {
    step->kind = StepKind::accumulate;
    int64_t bytes = 0;
    for (const auto& [to, from] : accumulate.pairs) {
      bytes += 2 * payload_bytes(to, shape_) + payload_bytes(from, shape_);
    }
    move(bytes, accumulate.pairs.size(), step);
  }
  void fill(const plan::Merge& merge, Step* step) {
    step->kind = StepKind::merge;
    int64_t bytes = 0;
    for (const auto& [output, lse, from_output, from_lse] : merge.pairs) {
      bytes += 2 * (payload_bytes(output, shape_) + payload_bytes(lse, shape_));
      bytes += payload_bytes(from_output, shape_) + payload_bytes(from_lse, shape_);
    }
    move(bytes, merge.pairs.size(), step);
  }
  void fill(const plan::Delta& delta, Step* step) {
    step->kind = StepKind::delta;
    int64_t bytes = 0;
    for (const auto& [to, output, grad_output] : delta.rows) {
      bytes += payload_bytes(to, shape_) + payload_bytes(output, shape_) + payload_bytes(grad_output, shape_);
    }
    move(bytes, delta.rows.size(), step);
  }
  void fill(const plan::Clear& clear, Step* step) {
    step->kind = StepKind::clear;
    int64_t bytes = 0;
    for (const Block& block : clear.blocks) bytes += payload_bytes(block, shape_);
    move(bytes, clear.blocks.size(), step);
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
  void move(int64_t bytes, size_t num_pairs, Step* step) const {
    step->seconds = profile_.memory_operation_seconds + profile_.memory_pair_seconds * static_cast<double>(num_pairs) +
                    static_cast<double>(bytes) / profile_.memory_bytes_per_second;
  }
  std::vector<Transfer> transfers(const std::vector<plan::Message>& messages) const {
    std::vector<Transfer> list;
    list.reserve(messages.size());
    for (const plan::Message& message : messages) {
      int64_t bytes = 0;
      for (const Block& block : message.blocks) bytes += payload_bytes(block, shape_);
      list.push_back(Transfer{message.peer, bytes});
    }
    return list;
  }

  const AttentionShape& shape_;
  const Profile& profile_;
  const AttentionTimes& times_;
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
  }
  return "";
}

Schedule price(const plan::Program& program, const AttentionShape& shape, const Profile& profile,
               const AttentionTimes& times, LiveBytes live_bytes) {
  Pricer pricer(shape, profile, times);
  for (const plan::Operation& operation : program.operations) pricer.add(operation);
  Schedule schedule = pricer.take();
  if (live_bytes == LiveBytes::count) {
    const std::vector<int64_t> counted = count_live_bytes(program, shape);
    for (size_t i = 0; i < counted.size(); ++i) schedule.steps[i].live_bytes = counted[i];
  }
  return schedule;
}

}  // namespace evenspan::simulate
