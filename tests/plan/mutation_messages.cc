// Damage to messages.
#include <map>
#include <optional>
#include <tuple>

#include "plan/mutation_kinds.h"

namespace evenspan::test {
namespace {

using namespace plan;  // NOLINT

// A message in the plan.
struct MessagePlace {
  OperationPlace operation;
  size_t index;
};

std::vector<Message>& messages_at(LoweredPlan& plan, const MessagePlace& place) {
  return std::get<Exchange>(operation_at(plan, place.operation).body).items;
}

std::vector<MessagePlace> message_places(LoweredPlan& plan) {
  std::vector<MessagePlace> places;
  for (const OperationPlace at : places_of<Exchange>(plan, [](const Exchange&, OperationPlace) { return true; })) {
    const auto& exchange = std::get<Exchange>(operation_at(plan, at).body);
    for (size_t m = 0; m < exchange.items.size(); ++m) places.push_back({at, m});
  }
  return places;
}

bool retarget_message(Dice& dice, LoweredPlan& plan) {
  auto places = message_places(plan);
  if (places.empty()) return false;
  const MessagePlace place = dice.one_of(places);
  Message& message = messages_at(plan, place)[place.index];
  const auto num_ranks = static_cast<int32_t>(plan.programs.size());
  message.peer =
      Rank((message.peer + 1 + static_cast<int32_t>(dice.below(static_cast<size_t>(num_ranks)))) % (num_ranks + 1));
  return true;
}

bool turn_message_around(Dice& dice, LoweredPlan& plan) {
  auto places = message_places(plan);
  if (places.empty()) return false;
  const MessagePlace place = dice.one_of(places);
  Direction& direction = messages_at(plan, place)[place.index].direction;
  direction = direction == Direction::send ? Direction::receive : Direction::send;
  return true;
}

bool drop_message(Dice& dice, LoweredPlan& plan) {
  auto places = message_places(plan);
  if (places.empty()) return false;
  const MessagePlace place = dice.one_of(places);
  auto& list = messages_at(plan, place);
  list.erase(list.begin() + static_cast<std::ptrdiff_t>(place.index));
  return true;
}

bool double_message(Dice& dice, LoweredPlan& plan) {
  auto places = message_places(plan);
  if (places.empty()) return false;
  const MessagePlace place = dice.one_of(places);
  auto& list = messages_at(plan, place);
  const Message message = list[place.index];
  list.push_back(message);
  return true;
}

bool is_same_part(const Message& a, const Message& b) {
  return std::equal(a.blocks.begin(), a.blocks.end(), b.blocks.begin(), b.blocks.end(),
                    [](const Block& x, const Block& y) {
                      return x.tensor == y.tensor && x.document == y.document && x.rows == y.rows &&
                             x.heads == y.heads && x.precision == y.precision;
                    });
}

// Two different messages to (or from) one peer change places at one end.
bool swap_messages(Dice& dice, LoweredPlan& plan) {
  const auto all = message_places(plan);
  std::vector<std::pair<MessagePlace, MessagePlace>> pairs;
  for (size_t a = 0; a < all.size(); ++a) {
    for (size_t b = a + 1; b < all.size(); ++b) {
      const PhasePlace p = all[a].operation.phase;
      const PhasePlace q = all[b].operation.phase;
      if (p != q) break;
      const Message& first = messages_at(plan, all[a])[all[a].index];
      const Message& second = messages_at(plan, all[b])[all[b].index];
      if (first.direction == second.direction && first.peer == second.peer && !is_same_part(first, second)) {
        pairs.emplace_back(all[a], all[b]);
      }
    }
  }
  if (pairs.empty()) return false;
  const auto& [a, b] = dice.one_of(pairs);
  std::swap(messages_at(plan, a)[a.index], messages_at(plan, b)[b.index]);
  return true;
}

bool swap_blocks_of_message(Dice& dice, LoweredPlan& plan) {
  auto places = message_places(plan);
  std::erase_if(places, [&](const MessagePlace& at) { return messages_at(plan, at)[at.index].blocks.size() < 2; });
  if (places.empty()) return false;
  const MessagePlace place = dice.one_of(places);
  auto& blocks = messages_at(plan, place)[place.index].blocks;
  std::swap(blocks.front(), blocks.back());
  return true;
}

// Both ends of a message, and whether a later operation of the receiver reads the block.
struct MatchedPlace {
  MessagePlace send, receive;
};

std::vector<MatchedPlace> matched_places(LoweredPlan& plan) {
  using Channel = std::tuple<PhaseKind, int32_t, int32_t>;  // from, to
  std::map<Channel, std::vector<MessagePlace>> sends, receives;
  for (const MessagePlace& place : message_places(plan)) {
    const auto [rank, kind] = place.operation.phase;
    const Message& message = messages_at(plan, place)[place.index];
    const int32_t peer = message.peer;
    if (message.direction == Direction::receive) {
      receives[{kind, peer, rank}].push_back(place);
    } else {
      sends[{kind, rank, peer}].push_back(place);
    }
  }
  std::vector<MatchedPlace> matched;
  for (const auto& [channel, list] : sends) {
    for (size_t i = 0; i < list.size(); ++i) matched.push_back({list[i], receives[channel][i]});
  }
  return matched;
}

bool is_used(LoweredPlan& plan, const MessagePlace& receive, const Block& block) {
  if (block.buffer == BufferId::home) return true;
  const auto& operations = phase_at(plan, receive.operation.phase).operations;
  for (size_t i = receive.operation.index + 1; i < operations.size(); ++i) {
    for (const BlockPlace& place : blocks_of(plan, {receive.operation.phase, i})) {
      if (!share_bytes(plan, *place.block, block)) continue;
      return place.access != Access::write && share_content(*place.block, block);
    }
  }
  return false;
}

bool drop_block_at_both_ends(Dice& dice, LoweredPlan& plan) {
  auto places = matched_places(plan);
  std::erase_if(places, [&](const MatchedPlace& at) {
    const auto& blocks = messages_at(plan, at.receive)[at.receive.index].blocks;
    return blocks.size() < 2 || !is_used(plan, at.receive, blocks.back());
  });
  if (places.empty()) return false;
  const auto [send, receive] = dice.one_of(places);
  messages_at(plan, send)[send.index].blocks.pop_back();
  messages_at(plan, receive)[receive.index].blocks.pop_back();
  return true;
}

bool drop_message_at_both_ends(Dice& dice, LoweredPlan& plan) {
  auto places = matched_places(plan);
  std::erase_if(places, [&](const MatchedPlace& at) {
    const auto& blocks = messages_at(plan, at.receive)[at.receive.index].blocks;
    return std::none_of(blocks.begin(), blocks.end(), [&](const Block& b) { return is_used(plan, at.receive, b); });
  });
  if (places.empty()) return false;
  const auto [send, receive] = dice.one_of(places);
  for (const MessagePlace& end : {send, receive}) {
    auto& list = messages_at(plan, end);
    list.erase(list.begin() + static_cast<std::ptrdiff_t>(end.index));
  }
  return true;
}

// Where two ranks send to each other in one exchange, every exchange is split into receiving first and sending then.
bool receive_before_sending(Dice&, LoweredPlan& plan) {
  std::optional<PhaseKind> crossing;  // the phase with such a pair
  const auto matched = matched_places(plan);
  const auto same = [](const OperationPlace& a, const OperationPlace& b) {
    return a.phase == b.phase && a.index == b.index;
  };
  for (const MatchedPlace& a : matched) {
    for (const MatchedPlace& b : matched) {
      if (same(a.send.operation, b.receive.operation) && same(a.receive.operation, b.send.operation)) {
        crossing = a.send.operation.phase.kind;
      }
    }
  }
  if (!crossing) return false;
  for (const PhasePlace phase : phase_places(plan)) {
    if (phase.kind != *crossing) continue;
    auto& operations = phase_at(plan, phase).operations;
    for (size_t i = 0; i < operations.size(); ++i) {
      auto* exchange = std::get_if<Exchange>(&operations[i].body);
      if (exchange == nullptr) continue;
      Exchange sends;
      std::erase_if(exchange->items, [&sends](const Message& message) {
        const bool send = message.direction == Direction::send;
        if (send) sends.items.push_back(message);
        return send;
      });
      const Event event = operations[i].signals + (1 << 20);
      operations.insert(operations.begin() + static_cast<std::ptrdiff_t>(i) + 1,
                        Operation{{}, event, std::move(sends)});
      ++i;
    }
  }
  return true;
}

constexpr Mutation kMessageMutations[] = {
    {"message retargeted", retarget_message},
    {"send turned into receive or back", turn_message_around},
    {"message dropped at one end", drop_message},
    {"message doubled at one end", double_message},
    {"messages swapped at one end", swap_messages},
    {"blocks swapped in a message", swap_blocks_of_message},
    {"block dropped at both ends", drop_block_at_both_ends},
    {"message dropped at both ends", drop_message_at_both_ends},
    {"receiving before sending everywhere", receive_before_sending},
};

}  // namespace

std::span<const Mutation> message_mutations() { return kMessageMutations; }

}  // namespace evenspan::test
