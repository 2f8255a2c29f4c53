// Small plans written by hand, and what the verifier must say of them.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "evenspan/plan/program.h"
#include "evenspan/plan/verify.h"
#include "gtest/gtest.h"

namespace evenspan::test {

// 4 query heads, 2 kv heads, head dimension 8, bf16.
inline plan::Request small_request(const std::vector<int64_t>& lengths, int32_t num_ranks, plan::Mask mask = {}) {
  plan::Request request;
  request.documents = plan::Documents(lengths, mask);
  request.shape = plan::AttentionShape{4, 2, 8, plan::ElementType::bf16};
  request.topology = plan::make_topology(num_ranks);
  return request;
}

// Makes the blocks of one rank of a plan.
class BlockMaker {
 public:
  BlockMaker(const plan::LoweredPlan& plan, int32_t rank) : plan_(plan), rank_(rank) {}

  HeadRange all_heads(plan::TensorName tensor) const {
    using enum plan::TensorName;
    const bool kv = tensor == key || tensor == value || tensor == grad_key || tensor == grad_value;
    return HeadRange{0, kv ? plan_.request.shape.num_kv_heads : plan_.request.shape.num_heads};
  }
  plan::Block home(plan::TensorName tensor, Span rows, int64_t document = 0) const {
    const HeadRange heads = all_heads(tensor);
    plan::Block block{tensor,
                      plan::BufferId::home,
                      plan::Precision::input,
                      DocumentId(document),
                      rows,
                      heads,
                      0,
                      heads.size() * plan::width(tensor, plan_.request.shape)};
    block.offset_bytes = plan_.placement.row_of(Rank(rank_), DocumentId(document), rows) * block.row_stride *
                         plan::element_bytes(block, plan_.request.shape);
    return block;
  }
  // Dense, all heads.
  plan::Block buffer(plan::BufferId where, plan::TensorName tensor, plan::Precision precision, Span rows,
                     int64_t offset_bytes, int64_t document = 0) const {
    const HeadRange heads = all_heads(tensor);
    return plan::Block{tensor, where, precision,    DocumentId(document),
                       rows,   heads, offset_bytes, heads.size() * plan::width(tensor, plan_.request.shape)};
  }
  plan::Block arena(plan::TensorName tensor, plan::Precision precision, Span rows, int64_t offset_bytes) const {
    return buffer(plan::BufferId::arena, tensor, precision, rows, offset_bytes);
  }

 private:
  const plan::LoweredPlan& plan_;
  int32_t rank_;
};

template <class Body>
plan::Operation operation(Body body, std::vector<int32_t> waits = {}) {
  return plan::Operation{std::move(waits), plan::kNoEvent, std::move(body)};
}

struct Ends {
  Rank peer;
  std::vector<plan::Block> blocks;
};
inline plan::Operation exchange(plan::Event event, std::vector<Ends> sends, std::vector<Ends> receives) {
  plan::Exchange exchange;
  for (auto& [peer, blocks] : sends) exchange.items.push_back({plan::Direction::send, peer, std::move(blocks)});
  for (auto& [peer, blocks] : receives) exchange.items.push_back({plan::Direction::receive, peer, std::move(blocks)});
  return plan::Operation{{}, event, std::move(exchange)};
}

// The gradients of a segment whose output is final.
inline plan::BackwardSegment backward(const plan::ForwardSegment& segment, const plan::Block& grad_output,
                                      const plan::GradientTarget& grad_query, const plan::GradientTarget& grad_key,
                                      const plan::GradientTarget& grad_value) {
  return {segment, segment.output, segment.lse, grad_output, grad_query, grad_key, grad_value};
}

// Of a softmax layer.
inline std::vector<plan::RankProgram> empty_programs(size_t num_ranks) {
  plan::RankProgram program;
  program.buffers = {{plan::Lifetime::caller, 0}, {plan::Lifetime::phase, 0}, {plan::Lifetime::step, 0}};
  program.phases = {{plan::PhaseKind::forward, {}}, {plan::PhaseKind::backward, {}}};
  return std::vector<plan::RankProgram>(num_ranks, program);
}

// One rank, one document: everything at home, log-sum-exp saved.
inline plan::LoweredPlan one_rank_plan(int64_t length, plan::Mask mask = {},
                                       plan::TileKind kind = plan::TileKind::causal) {
  using enum plan::TensorName;
  plan::LoweredPlan plan;
  plan.request = small_request({length}, 1, mask);
  plan.placement = plan::Placement(plan.request.documents, {{{DocumentId(0), Span{0, length}}}});
  plan.programs = empty_programs(1);
  const BlockMaker make(plan, 0);
  const Span all{0, length};
  plan::ForwardSegment segment;
  segment.kind = kind;
  segment.window = mask.extent;
  segment.query = make.home(query, all);
  segment.key = make.home(key, all);
  segment.value = make.home(value, all);
  segment.output = make.home(output, all);
  segment.lse = make.buffer(plan::BufferId::saved, lse, plan::Precision::accumulation, all, 0);
  const plan::BackwardSegment gradient =
      backward(segment, make.home(grad_output, all), {make.home(grad_query, all), false},
               {make.home(grad_key, all), false}, {make.home(grad_value, all), false});
  plan.programs[0].phase(plan::PhaseKind::forward).operations = {operation(plan::Attend{{segment}})};
  plan.programs[0].phase(plan::PhaseKind::backward).operations = {operation(plan::AttendGradient{{gradient}})};
  plan.programs[0].buffer(plan::BufferId::saved).bytes = length * 4 * 4;
  return plan;
}

// Two ranks, one causal document of 8 tokens, 4 on each. Rank 1 receives the first keys and values in both directions,
// folds, and sends their gradients back. Bytes of 4 rows: 256 of keys and 512 of output in float32, half of that in
// bf16, 64 of log-sum-exp. The offsets leave room for either type.
//
//   forward   rank 0: 0 exchange(send key, value)     1 attend causal
//             rank 1: 0 exchange(receive)  1 attend causal  2 attend full, fold, waits 0  3 copy output home
//   backward  rank 0: 0 exchange(send key, value)     1 gradients of the causal tile  2 exchange(receive gradients)
//                     3 accumulate, waits 1  4 copy home
//             rank 1: 0 exchange(receive)  1 gradients of the causal tile  2 of the full tile, waits 0
//                     3 copy grad_query home  4 exchange(send gradients)
inline plan::LoweredPlan two_rank_plan(plan::ElementType element = plan::ElementType::bf16) {
  using enum plan::TensorName;
  using enum plan::Precision;
  plan::LoweredPlan plan;
  plan.request = small_request({8}, 2);
  plan.request.shape.element = element;
  const Span low{0, 4};
  const Span high{4, 8};
  plan.placement = plan::Placement(plan.request.documents, {{{DocumentId(0), low}}, {{DocumentId(0), high}}});
  plan.programs = empty_programs(2);
  const BlockMaker zero(plan, 0);
  const BlockMaker one(plan, 1);
  const auto saved_lse = [](const BlockMaker& make, Span rows) {
    return make.buffer(plan::BufferId::saved, lse, accumulation, rows, 0);
  };
  const plan::Operation send = exchange(0, {{Rank(1), {zero.home(key, low)}}, {Rank(1), {zero.home(value, low)}}}, {});
  const plan::Operation receive =
      exchange(0, {}, {{Rank(0), {one.arena(key, input, low, 0)}}, {Rank(0), {one.arena(value, input, low, 256)}}});

  plan::ForwardSegment first{
      {plan::TileKind::causal, 0, zero.home(query, low), zero.home(key, low), zero.home(value, low)},
      zero.home(output, low),
      saved_lse(zero, low),
      false};
  plan.programs[0].phase(plan::PhaseKind::forward).operations = {send, operation(plan::Attend{{first}})};
  plan.programs[0].buffer(plan::BufferId::saved).bytes = 64;

  const plan::Block partial = one.arena(output, accumulation, high, 512);
  plan::ForwardSegment own{
      {plan::TileKind::causal, 0, one.home(query, high), one.home(key, high), one.home(value, high)},
      partial,
      saved_lse(one, high),
      false};
  plan::ForwardSegment far{{plan::TileKind::full, 0, one.home(query, high), one.arena(key, input, low, 0),
                            one.arena(value, input, low, 256)},
                           partial,
                           saved_lse(one, high),
                           true};
  plan.programs[1].phase(plan::PhaseKind::forward).operations = {
      receive, operation(plan::Attend{{own}}), operation(plan::Attend{{far}}, {0}),
      operation(plan::Copy{{{one.home(output, high), partial}}})};
  plan.programs[1].buffer(plan::BufferId::arena).bytes = 1024;
  plan.programs[1].buffer(plan::BufferId::saved).bytes = 64;

  const plan::Block key_sum = zero.arena(grad_key, accumulation, low, 0);
  const plan::Block value_sum = zero.arena(grad_value, accumulation, low, 256);
  const plan::Block key_part = zero.arena(grad_key, accumulation, low, 512);
  const plan::Block value_part = zero.arena(grad_value, accumulation, low, 768);
  plan.programs[0].phase(plan::PhaseKind::backward).operations = {
      send,
      operation(plan::AttendGradient{{backward(first, zero.home(grad_output, low), {zero.home(grad_query, low), false},
                                               {key_sum, false}, {value_sum, false})}}),
      exchange(1, {}, {{Rank(1), {key_part, value_part}}}),
      operation(plan::Accumulate{{{key_sum, key_part}, {value_sum, value_part}}}, {1}),
      operation(plan::Copy{{{zero.home(grad_key, low), key_sum}, {zero.home(grad_value, low), value_sum}}})};
  plan.programs[0].buffer(plan::BufferId::arena).bytes = 1024;

  own.output = far.output = one.home(output, high);
  far.fold = false;
  const plan::Block query_sum = one.arena(grad_query, accumulation, high, 512);
  const plan::Block key_sent = one.arena(grad_key, accumulation, low, 1024);
  const plan::Block value_sent = one.arena(grad_value, accumulation, low, 1280);
  plan.programs[1].phase(plan::PhaseKind::backward).operations = {
      receive,
      operation(
          plan::AttendGradient{{backward(own, one.home(grad_output, high), {query_sum, false},
                                         {one.home(grad_key, high), false}, {one.home(grad_value, high), false})}}),
      operation(plan::AttendGradient{{backward(far, one.home(grad_output, high), {query_sum, true}, {key_sent, false},
                                               {value_sent, false})}},
                {0}),
      operation(plan::Copy{{{one.home(grad_query, high), query_sum}}}),
      exchange(1, {{Rank(0), {key_sent, value_sent}}}, {})};
  plan.programs[1].buffer(plan::BufferId::arena).bytes = 1536;
  return plan;
}

// The body of an operation of a plan.
template <class Body>
Body& body(plan::LoweredPlan& plan, int32_t rank, bool backward, size_t index) {
  const auto phase = backward ? plan::PhaseKind::backward : plan::PhaseKind::forward;
  return std::get<Body>(plan.programs[static_cast<size_t>(rank)].phase(phase).operations[index].body);
}

inline std::string to_text(const std::vector<plan::Finding>& findings) {
  std::string text;
  for (const plan::Finding& finding : findings) text += plan::to_string(finding) + "\n";
  return text;
}

inline void expect_proven(const plan::LoweredPlan& plan) { EXPECT_EQ(to_text(plan::verify(plan)), ""); }

// One of the findings is of this proof and contains the text.
inline void expect_refuted(const plan::LoweredPlan& plan, plan::Proof proof, const std::string& text) {
  const std::vector<plan::Finding> findings = plan::verify(plan);
  for (const plan::Finding& finding : findings) {
    if (finding.proof == proof && plan::to_string(finding).find(text) != std::string::npos) return;
  }
  ADD_FAILURE() << "no finding of proof " << plan::to_string(proof) << " says \"" << text << "\"; found:\n"
                << to_text(findings);
}

}  // namespace evenspan::test
