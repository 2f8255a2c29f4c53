// Writing a phase: operations in order, exchanges with their packing, and at the end the offsets of the arena.
#pragma once

#include <map>
#include <vector>

#include "evenspan/plan/program.h"

namespace evenspan::plan {

// What remains to be done when an exchange is complete.
struct Completion {
  Event event = kNoEvent;  // none: nothing was exchanged
  std::vector<BlockPair> copies;
  std::vector<BlockPair> additions;
  std::vector<PartialPair> merges;
};

// The least multiple of the buffers' alignment that holds so many bytes.
constexpr int64_t aligned(int64_t bytes) {
  constexpr int64_t kAlignment = 64;
  return (bytes + kAlignment - 1) / kAlignment * kAlignment;
}

// Home, one arena and one saved buffer, both empty yet.
inline std::vector<Buffer> standard_buffers() {
  return {{Lifetime::caller, 0}, {Lifetime::phase, 0}, {Lifetime::step, 0}};
}

class Emitter {
 public:
  Emitter(const AttentionShape& shape, PhaseKind kind) : shape_(shape) { phase_.kind = kind; }

  // A new dense arena block, or a part of raw arena memory that the caller lays out.
  Block arena_block(TensorName tensor, Precision precision, DocumentId document, Span rows, HeadRange heads);
  int64_t allot(int64_t num_bytes);  // its offset

  // The next operation waits for the event; none: kNoEvent.
  void wait(Event event);
  // An operation without items is left out; pending waits go to the next one.
  template <class Body>
  void emit(Body body, Event signals = kNoEvent) {
    if (body.items.empty()) return;
    phase_.operations.push_back(Operation{std::move(waits_), signals, std::move(body)});
    waits_.clear();
  }
  // Waits and does what remains.
  void complete(Completion pending);

  Event next_event() { return num_events_++; }
  const AttentionShape& shape() const { return shape_; }

  // Gives what was allotted its offset in the arena, by lifetime. The arena grows to hold it.
  Phase finish(Buffer* arena);

 private:
  const AttentionShape& shape_;
  Phase phase_;
  std::vector<Event> waits_;
  std::vector<int64_t> allotted_bytes_;  // [allotment]
  Event num_events_ = 0;
};

// One exchange under construction. Both ends name the same rows and so agree on the messages, whatever the order in
// which they add them: blocks of at least kDirectBytes travel alone, without a copy where they are dense; smaller ones
// share a message.
class ExchangeBuilder {
 public:
  static constexpr int64_t kDirectBytes = int64_t{32} * 1024;

  explicit ExchangeBuilder(Emitter* emitter) : emitter_(*emitter) {}

  // Sends `source` in precision `wire`.
  void send(Rank peer, const Block& source, Precision wire) { add(&sends_[peer], source, wire, Use::copy); }
  // Receives into `target`, or adds to it.
  void receive(Rank peer, const Block& target, Precision wire, bool add) {
    this->add(&receives_[peer], target, wire, add ? Use::add : Use::copy);
  }
  // Receives a partial result, output in precision `wire`, and merges it into another.
  void receive_partial(Rank peer, const Block& output, const Block& lse, Precision wire) {
    add(&receives_[peer], output, wire, Use::merge);
    add(&receives_[peer], lse, Precision::accumulation, Use::merge);
  }

  // Emits the packing copies and the exchange; none when nothing was added.
  Completion start();

 private:
  enum class Use : uint8_t { copy, add, merge };
  struct Item {
    Block block;
    Precision wire;
    Use use;
    int64_t element_bytes;  // on the wire
    int64_t wire_bytes;
  };
  void add(std::vector<Item>* items, const Block& block, Precision wire, Use use);
  // Wide elements first, so that all are aligned, then by what they hold; cut into messages.
  std::vector<std::vector<Item>> messages(std::vector<Item> items) const;
  static void append_merges(std::vector<BlockPair> blocks, std::vector<PartialPair>* merges);
  // The item as it lies on the wire, at an offset of the arena.
  Block wire_block(const Item& item, int64_t offset) const;

  Emitter& emitter_;
  std::map<Rank, std::vector<Item>> sends_, receives_;
};

}  // namespace evenspan::plan
