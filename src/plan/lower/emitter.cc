#include "plan/lower/emitter.h"

#include <algorithm>
#include <numeric>
#include <tuple>

#include "evenspan/core/error.h"
#include "plan/visit.h"

namespace evenspan::plan {
namespace {

// While a phase is written, an arena offset is the number of an allotment above this bit and an offset in it below.
constexpr int kAllotmentShift = 40;

struct LiveRange {
  int64_t first = -1;  // operation; -1: never used
  int64_t last = -1;
  friend auto operator<=>(const LiveRange&, const LiveRange&) = default;
};

// The first operation that waits for an event: all that the operation which signals it has allotted lives until then.
std::map<Event, int64_t> first_waits(const Phase& phase) {
  std::map<Event, int64_t> waited_at;
  for (size_t i = 0; i < phase.operations.size(); ++i) {
    for (const Event event : phase.operations[i].waits) waited_at.emplace(event, static_cast<int64_t>(i));
  }
  return waited_at;
}

// Allotments of one live range lie together, as one region; the largest regions first, each at the lowest offset where
// no region that lives at the same time is. A phase has few live ranges and, with many documents, many allotments.
std::vector<int64_t> place(const std::vector<int64_t>& sizes, const std::vector<LiveRange>& lives, int64_t* total) {
  struct Region {
    LiveRange life;
    int64_t bytes = 0;
    int64_t offset = 0;
  };
  std::vector<int64_t> offsets(sizes.size(), 0);  // in the region
  std::vector<size_t> region_of(sizes.size(), 0);
  std::vector<Region> regions;
  std::map<LiveRange, size_t> by_life;
  for (size_t b = 0; b < sizes.size(); ++b) {
    if (lives[b].first < 0) continue;
    const auto [at, is_new] = by_life.emplace(lives[b], regions.size());
    if (is_new) regions.push_back(Region{lives[b]});
    region_of[b] = at->second;
    Region& region = regions[at->second];
    offsets[b] = region.bytes;
    region.bytes += aligned(sizes[b]);
  }
  std::vector<size_t> order(regions.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return regions[a].bytes > regions[b].bytes; });
  std::vector<size_t> placed;  // by offset
  for (const size_t r : order) {
    Region& region = regions[r];
    for (const size_t other_index : placed) {
      const Region& other = regions[other_index];
      if (other.life.last < region.life.first || region.life.last < other.life.first) continue;
      if (region.offset + region.bytes <= other.offset) break;
      region.offset = std::max(region.offset, other.offset + other.bytes);
    }
    *total = std::max(*total, region.offset + region.bytes);
    placed.insert(std::upper_bound(placed.begin(), placed.end(), r,
                                   [&](size_t x, size_t y) { return regions[x].offset < regions[y].offset; }),
                  r);
  }
  for (size_t b = 0; b < sizes.size(); ++b) {
    if (lives[b].first >= 0) offsets[b] += regions[region_of[b]].offset;
  }
  return offsets;
}

}  // namespace

int64_t Emitter::allot(int64_t num_bytes) {
  allotted_bytes_.push_back(num_bytes);
  return static_cast<int64_t>(allotted_bytes_.size() - 1) << kAllotmentShift;
}

Block Emitter::arena_block(TensorName tensor, Precision precision, DocumentId document, Span rows, HeadRange heads) {
  Block block{tensor, BufferId::arena, precision, document, rows, heads, 0, heads.size() * width(tensor, shape_)};
  block.offset_bytes = allot(payload_bytes(block, shape_));
  return block;
}

void Emitter::wait(Event event) {
  if (event != kNoEvent) waits_.push_back(event);
}

void Emitter::complete(Completion pending) {
  wait(pending.event);
  emit(Copy{std::move(pending.copies)});
  emit(Accumulate{std::move(pending.additions)});
  emit(Merge{std::move(pending.merges)});
}

Phase Emitter::finish(Buffer* arena) {
  const auto waited_at = first_waits(phase_);
  std::vector<LiveRange> lives(allotted_bytes_.size());
  for (size_t i = 0; i < phase_.operations.size(); ++i) {
    Operation& operation = phase_.operations[i];
    auto last = static_cast<int64_t>(i);
    if (operation.signals != kNoEvent) {
      const auto at = waited_at.find(operation.signals);
      last = at != waited_at.end() ? at->second : static_cast<int64_t>(phase_.operations.size());
    }
    for_each_block(operation, shape_, [&](Block& block, Access) {
      if (block.buffer != BufferId::arena) return;
      LiveRange& life = lives[static_cast<size_t>(block.offset_bytes >> kAllotmentShift)];
      if (life.first < 0) life.first = static_cast<int64_t>(i);
      life.last = std::max(life.last, last);
    });
  }
  const std::vector<int64_t> offsets = place(allotted_bytes_, lives, &arena->bytes);
  for (Operation& operation : phase_.operations) {
    for_each_block(operation, shape_, [&](Block& block, Access) {
      if (block.buffer != BufferId::arena) return;
      const int64_t allotment = block.offset_bytes >> kAllotmentShift;
      block.offset_bytes += offsets[static_cast<size_t>(allotment)] - (allotment << kAllotmentShift);
    });
  }
  return std::move(phase_);
}

void ExchangeBuilder::add(std::vector<Item>* items, const Block& block, Precision wire, Use use) {
  Item& item = items->emplace_back(Item{block, wire, use, 0, 0});
  const Block on_wire = wire_block(item, 0);
  item.element_bytes = element_bytes(on_wire, emitter_.shape());
  item.wire_bytes = payload_bytes(on_wire, emitter_.shape());
}

std::vector<std::vector<ExchangeBuilder::Item>> ExchangeBuilder::messages(std::vector<Item> items) const {
  const auto order = [](const Item& item) {
    const Block& block = item.block;
    return std::tuple(-item.element_bytes, block.document, block.rows, block.heads, block.tensor);
  };
  std::sort(items.begin(), items.end(), [&](const Item& a, const Item& b) { return order(a) < order(b); });
  std::vector<std::vector<Item>> cut;
  std::vector<Item> shared;
  for (const Item& item : items) {
    if (item.wire_bytes >= kDirectBytes) {
      cut.push_back({item});
    } else {
      shared.push_back(item);
    }
  }
  if (!shared.empty()) cut.push_back(std::move(shared));
  return cut;
}

Block ExchangeBuilder::wire_block(const Item& item, int64_t offset) const {
  Block block = item.block;
  block.buffer = BufferId::arena;
  block.precision = item.wire;
  block.offset_bytes = offset;
  block.row_stride = block.heads.size() * width(block.tensor, emitter_.shape());
  return block;
}

// Outputs and log-sum-exps arrive in messages of their own: brings those of the same rows and heads together.
void ExchangeBuilder::append_merges(std::vector<BlockPair> blocks, std::vector<PartialPair>* merges) {
  std::sort(blocks.begin(), blocks.end(), [](const BlockPair& a, const BlockPair& b) {
    const auto key = [](const Block& block) {
      return std::tuple(block.document, block.rows, block.heads, block.tensor);
    };
    return key(a.to) < key(b.to);
  });
  for (size_t i = 0; i < blocks.size(); i += 2) {
    const auto& [output, from_output] = blocks[i];
    const auto& [lse, from_lse] = blocks[i + 1];
    merges->push_back(PartialPair{output, lse, from_output, from_lse});
  }
}

Completion ExchangeBuilder::start() {
  Completion pending;
  if (sends_.empty() && receives_.empty()) return pending;
  Exchange exchange;
  Copy packing;
  std::vector<BlockPair> merging;  // of one peer
  // A message of one dense block is its own memory; others are laid out in the arena.
  const auto lay_out = [&](Rank peer, const std::vector<Item>& items, bool sending) {
    Message message{sending ? Direction::send : Direction::receive, peer, {}};
    const Item& first = items.front();
    if (items.size() == 1 && first.block.precision == first.wire && first.use == Use::copy &&
        is_dense(first.block, emitter_.shape())) {
      message.blocks.push_back(first.block);
      return message;
    }
    int64_t bytes = 0;
    for (const Item& item : items) bytes += item.wire_bytes;
    int64_t offset = emitter_.allot(bytes);
    for (const Item& item : items) {
      const Block wire = wire_block(item, offset);
      offset += item.wire_bytes;
      message.blocks.push_back(wire);
      if (sending) {
        packing.items.push_back(BlockPair{wire, item.block});
      } else {
        auto& pairs = item.use == Use::copy ? pending.copies : item.use == Use::add ? pending.additions : merging;
        pairs.push_back(BlockPair{item.block, wire});
      }
    }
    return message;
  };
  for (auto& [peer, items] : sends_) {
    for (const auto& message : messages(std::move(items))) exchange.items.push_back(lay_out(peer, message, true));
  }
  for (auto& [peer, items] : receives_) {
    for (const auto& message : messages(std::move(items))) exchange.items.push_back(lay_out(peer, message, false));
    append_merges(std::move(merging), &pending.merges);
    merging.clear();
  }
  emitter_.emit(std::move(packing));
  pending.event = emitter_.next_event();
  emitter_.emit(std::move(exchange), pending.event);
  return pending;
}

}  // namespace evenspan::plan
