// Exchange: sends and receives that start together. The operation that needs them waits for its event.
#pragma once

#include <vector>

#include "evenspan/plan/operation/traits.h"

namespace evenspan::plan {

enum class Direction : uint8_t { send, receive };

// Blocks that lie back to back, in this order, in one dense range of memory, at both ends. Messages between two ranks
// match in program order.
struct Message {
  Direction direction = Direction::send;
  Rank peer;
  std::vector<Block> blocks;
  friend bool operator==(const Message&, const Message&) = default;
};

struct Exchange {
  static constexpr OperationTraits kTraits{"exchange", Layers::all, Passes::both, /*starts=*/true};
  std::vector<Message> items;
  friend bool operator==(const Exchange&, const Exchange&) = default;

  template <class Fields, class Item>
  static void visit(Fields& fields, Item& message) {
    fields.choice(message.direction, "to", "from");
    fields.peer(message.peer);
    fields.blocks(message.blocks, message.direction == Direction::send ? Access::read : Access::write);
  }
};

}  // namespace evenspan::plan
