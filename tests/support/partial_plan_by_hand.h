// A small plan, written by hand, whose partial output travels.
#pragma once

#include "support/plan_by_hand.h"

namespace evenspan::test {

// Two ranks, one causal document of 8 tokens, 4 on each, bf16. Keys and values stay at home: the queries of rank 1 go
// to rank 0, their partial output comes back and is merged. Bytes of 4 rows: 256 of queries and outputs, 128 of keys,
// twice that under accumulation; 64 of log-sum-exp and delta.
//
//   forward   rank 0: 0 exchange(receive query)  1 attend causal  2 attend full, waits 0  3 exchange(send partial)
//             rank 1: 0 exchange(send query)  1 attend causal  2 exchange(receive partial)  3 merge, waits 1  4 copy
//             home
//   backward  rank 0: 0 exchange(receive query, grad_output, lse, delta)  1 gradients of the causal tile
//                     2 of the full tile, waits 0  3 exchange(send grad_query)  4 copy home
//             rank 1: 0 delta  1 exchange(send what rank 0 needs)  2 gradients of the causal tile
//                     3 exchange(receive grad_query)  4 accumulate, waits 1  5 copy home
inline plan::LoweredPlan partial_plan() {
  using enum plan::TensorName;
  using enum plan::Precision;
  plan::LoweredPlan plan;
  plan.request = small_request({8}, 2);
  const Span low{0, 4}, high{4, 8};
  plan.placement = plan::Placement(plan.request.documents, {{{DocumentId(0), low}}, {{DocumentId(0), high}}});
  plan.programs = empty_programs(2);
  const BlockMaker zero(plan, 0), one(plan, 1);
  const auto saved_lse = [](const BlockMaker& make, Span rows) {
    return make.buffer(plan::BufferId::saved, lse, accumulation, rows, 0);
  };
  plan::ForwardSegment first{
      {plan::TileKind::causal, 0, zero.home(query, low), zero.home(key, low), zero.home(value, low)},
      zero.home(output, low),
      saved_lse(zero, low),
      false};
  plan::ForwardSegment far{
      {plan::TileKind::full, 0, zero.arena(query, input, high, 0), zero.home(key, low), zero.home(value, low)},
      zero.arena(output, accumulation, high, 256),
      zero.arena(lse, accumulation, high, 768),
      false};
  plan.programs[0].phase(plan::PhaseKind::forward).operations = {
      exchange(0, {}, {{Rank(1), {far.query}}}), operation(plan::Attend{{first}}), operation(plan::Attend{{far}}, {0}),
      exchange(1, {{Rank(1), {far.output, far.lse}}}, {})};
  plan.programs[0].buffer(plan::BufferId::arena).bytes = 832;
  plan.programs[0].buffer(plan::BufferId::saved).bytes = 64;

  const plan::Block sum = one.arena(output, accumulation, high, 0);
  const plan::Block part = one.arena(output, accumulation, high, 512);
  const plan::Block part_lse = one.arena(lse, accumulation, high, 1024);
  plan::ForwardSegment own{
      {plan::TileKind::causal, 0, one.home(query, high), one.home(key, high), one.home(value, high)},
      sum,
      saved_lse(one, high),
      false};
  plan.programs[1].phase(plan::PhaseKind::forward).operations = {
      exchange(0, {{Rank(0), {one.home(query, high)}}}, {}), operation(plan::Attend{{own}}),
      exchange(1, {}, {{Rank(0), {part, part_lse}}}), operation(plan::Merge{{{sum, own.lse, part, part_lse}}}, {1}),
      operation(plan::Copy{{{one.home(output, high), sum}}})};
  plan.programs[1].buffer(plan::BufferId::arena).bytes = 1088;
  plan.programs[1].buffer(plan::BufferId::saved).bytes = 64;

  far.output = zero.arena(delta, accumulation, high, 256);
  far.lse = zero.arena(lse, accumulation, high, 320);
  const plan::Block far_gradient = zero.arena(grad_output, input, high, 384);
  const plan::Block key_sum = zero.arena(grad_key, accumulation, low, 640);
  const plan::Block value_sum = zero.arena(grad_value, accumulation, low, 896);
  const plan::Block query_part = zero.arena(grad_query, input, high, 1152);
  plan.programs[0].phase(plan::PhaseKind::backward).operations = {
      exchange(0, {},
               {{Rank(1), {far.query}}, {Rank(1), {far_gradient}}, {Rank(1), {far.lse}}, {Rank(1), {far.output}}}),
      operation(plan::AttendGradient{{backward(first, zero.home(grad_output, low), {zero.home(grad_query, low), false},
                                               {key_sum, false}, {value_sum, false})}}),
      operation(
          plan::AttendGradient{{backward(far, far_gradient, {query_part, false}, {key_sum, true}, {value_sum, true})}},
          {0}),
      exchange(1, {{Rank(1), {query_part}}}, {}),
      operation(plan::Copy{{{zero.home(grad_key, low), key_sum}, {zero.home(grad_value, low), value_sum}}})};
  plan.programs[0].buffer(plan::BufferId::arena).bytes = 1408;

  own.output = one.home(output, high);
  const plan::Block delta_sent = one.arena(delta, accumulation, high, 0);
  const plan::Block query_sum = one.arena(grad_query, accumulation, high, 64);
  const plan::Block query_came = one.arena(grad_query, input, high, 576);
  plan.programs[1].phase(plan::PhaseKind::backward).operations = {
      operation(plan::Delta{{{delta_sent, own.output, one.home(grad_output, high)}}}),
      exchange(0,
               {{Rank(0), {one.home(query, high)}},
                {Rank(0), {one.home(grad_output, high)}},
                {Rank(0), {own.lse}},
                {Rank(0), {delta_sent}}},
               {}),
      operation(
          plan::AttendGradient{{backward(own, one.home(grad_output, high), {query_sum, false},
                                         {one.home(grad_key, high), false}, {one.home(grad_value, high), false})}}),
      exchange(1, {}, {{Rank(0), {query_came}}}),
      operation(plan::Accumulate{{{query_sum, query_came}}}, {1}),
      operation(plan::Copy{{{one.home(grad_query, high), query_sum}}})};
  return plan;
}

}  // namespace evenspan::test
