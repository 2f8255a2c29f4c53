// Visiting the blocks of an operation.
#pragma once

#include <type_traits>
#include <utility>
#include <variant>

#include "evenspan/plan/program.h"

namespace evenspan::plan {

enum class Access : uint8_t { read, write, update };  // update: read and written

template <class... Fs>
struct Overloaded : Fs... {
  using Fs::operator()...;
};
template <class... Fs>
Overloaded(Fs...) -> Overloaded<Fs...>;

// Calls f(block, access) for every block of the operation, reads before the writes that depend on them. `op` may be
// const or not; f gets the blocks accordingly.
template <class Op, class F>
void for_each_block(Op& op, F&& f) {
  const auto pairs = [&f](auto& list, Access to) {
    for (auto& pair : list) {
      f(pair.from, Access::read);
      f(pair.to, to);
    }
  };
  const auto operands = [&f](auto& segment) {
    f(segment.query, Access::read);
    f(segment.key, Access::read);
    f(segment.value, Access::read);
  };
  std::visit(
      [&](auto& body) {
        using Body = std::remove_cvref_t<decltype(body)>;
        if constexpr (std::is_same_v<Body, Exchange>) {
          for (auto& message : body.sends) {
            for (auto& block : message.blocks) f(block, Access::read);
          }
          for (auto& message : body.receives) {
            for (auto& block : message.blocks) f(block, Access::write);
          }
        } else if constexpr (std::is_same_v<Body, Attend>) {
          for (auto& segment : body.segments) {
            operands(segment);
            f(segment.output, segment.fold ? Access::update : Access::write);
            f(segment.lse, segment.fold ? Access::update : Access::write);
          }
        } else if constexpr (std::is_same_v<Body, AttendGradient>) {
          for (auto& segment : body.segments) {
            operands(segment.forward);
            f(segment.forward.output, Access::read);
            f(segment.forward.lse, Access::read);
            f(segment.grad_output, Access::read);
            for (auto* target : {&segment.grad_query, &segment.grad_key, &segment.grad_value}) {
              f(target->block, target->add ? Access::update : Access::write);
            }
          }
        } else if constexpr (std::is_same_v<Body, Copy>) {
          pairs(body.pairs, Access::write);
        } else if constexpr (std::is_same_v<Body, Accumulate>) {
          pairs(body.pairs, Access::update);
        } else if constexpr (std::is_same_v<Body, Merge>) {
          for (auto& pair : body.pairs) {
            f(pair.from_output, Access::read);
            f(pair.from_lse, Access::read);
            f(pair.output, Access::update);
            f(pair.lse, Access::update);
          }
        } else if constexpr (std::is_same_v<Body, Delta>) {
          for (auto& rows : body.rows) {
            f(rows.output, Access::read);
            f(rows.grad_output, Access::read);
            f(rows.delta, Access::write);
          }
        } else if constexpr (std::is_same_v<Body, Clear>) {
          for (auto& block : body.blocks) f(block, Access::write);
        } else if constexpr (std::is_same_v<Body, Summarize>) {
          for (auto& part : body.parts) {
            f(part.summary, Access::write);
            if (part.transition) f(*part.transition, Access::write);
          }
        } else if constexpr (std::is_same_v<Body, Combine>) {
          for (auto& c : body.compositions) {
            f(c.far, Access::read);
            f(c.near, Access::read);
            if (c.far_transition) f(*c.far_transition, Access::read);
            if (c.near_transition) f(*c.near_transition, Access::read);
            f(c.to, Access::write);
            if (c.to_transition) f(*c.to_transition, Access::write);
          }
        } else if constexpr (std::is_same_v<Body, Intra>) {
          for (auto& part : body.parts) {
            if (part.state) f(*part.state, Access::read);
          }
        } else {
          static_assert(std::is_same_v<Body, Apply>);
          for (auto& part : body.parts) {
            if (part.state) f(*part.state, Access::read);
            if (part.grad_state) f(*part.grad_state, Access::read);
          }
        }
      },
      op.body);
}

}  // namespace evenspan::plan
