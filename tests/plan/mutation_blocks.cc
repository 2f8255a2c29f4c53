// Damage to blocks and to the memory that they lie in.
#include "plan/mutation_kinds.h"

namespace evenspan::test {
namespace {

using namespace plan;  // NOLINT

// Applies `change(block)` to a random block for which it returns true, or `change(block, place)`.
template <class F>
bool change_block(Dice& dice, LoweredPlan& plan, F&& change) {
  auto places = live_blocks(plan);
  while (!places.empty()) {
    const size_t i = dice.below(places.size());
    if constexpr (std::is_invocable_v<F, Block&>) {
      if (change(*places[i].block)) return true;
    } else {
      if (change(*places[i].block, places[i].operation)) return true;
    }
    places.erase(places.begin() + static_cast<std::ptrdiff_t>(i));
  }
  return false;
}

// Moves the block to another place, unless the same rows happen to lie there, too.
template <class F>
bool relocate(LoweredPlan& plan, Block& block, F&& move) {
  const Block old = block;
  move();
  const auto same = block_places(plan, [&](const BlockPlace& at) {
    return at.block != &block && share_content(*at.block, block) && share_bytes(plan, *at.block, block) &&
           !share_bytes(plan, *at.block, old);
  });
  if (same.empty()) return true;
  block = old;
  return false;
}

bool shift_rows(Dice& dice, LoweredPlan& plan) {
  return change_block(dice, plan, [&](Block& block) {
    const int64_t by = dice.coin() ? 1 : -1;
    block.rows = Span{block.rows.begin + by, block.rows.end + by};
    return true;
  });
}

bool shift_rows_and_offset(Dice& dice, LoweredPlan& plan) {
  return change_block(dice, plan, [&](Block& block) {
    const int64_t by = dice.coin() ? 1 : -1;
    block.rows = Span{block.rows.begin + by, block.rows.end + by};
    block.offset_bytes += by * block.row_stride * element_bytes(block, plan.request.shape);
    return true;
  });
}

bool shorten_rows(Dice& dice, LoweredPlan& plan) {
  return change_block(dice, plan, [&](Block& block) {
    if (block.rows.size() < 2) return false;
    Span rows = block.rows;
    (dice.coin() ? rows.begin += 1 : rows.end -= 1);
    block = sub_block(block, rows, block.heads, plan.request.shape);
    return true;
  });
}

bool lengthen_rows(Dice& dice, LoweredPlan& plan) {
  return change_block(dice, plan, [&](Block& block, OperationPlace at) {
    if (std::holds_alternative<Clear>(operation_at(plan, at).body)) return false;  // what follows may be free
    return ++block.rows.end, true;
  });
}

bool shift_heads(Dice& dice, LoweredPlan& plan) {
  return change_block(dice, plan, [&](Block& block) {
    const int32_t by = dice.coin() ? 1 : -1;
    block.heads = HeadRange{block.heads.begin + by, block.heads.end + by};
    return true;
  });
}

bool drop_head(Dice& dice, LoweredPlan& plan) {
  return change_block(dice, plan, [&](Block& block) {
    if (block.heads.size() < 2) return false;
    HeadRange heads = block.heads;
    (dice.coin() ? heads.begin += 1 : heads.end -= 1);
    block = sub_block(block, block.rows, heads, plan.request.shape);
    return true;
  });
}

bool change_document(Dice& dice, LoweredPlan& plan) {
  return change_block(dice, plan, [&](Block& block) {
    const auto count = static_cast<size_t>(plan.request.documents.size());
    block.document = DocumentId((block.document + 1 + static_cast<int64_t>(dice.below(count))) %
                                (plan.request.documents.size() + 1));
    return true;
  });
}

bool rename_tensor(Dice& dice, LoweredPlan& plan) {
  return change_block(dice, plan, [&](Block& block) {
    const int old = static_cast<int>(block.tensor);
    block.tensor =
        static_cast<TensorName>((old + 1 + static_cast<int>(dice.below(kNumTensorNames - 1))) % kNumTensorNames);
    return true;
  });
}

bool change_buffer(Dice& dice, LoweredPlan& plan) {
  return change_block(dice, plan, [&](Block& block) {
    return relocate(plan, block, [&] {
      block.buffer = static_cast<BufferId>((static_cast<int>(block.buffer) + 1 + static_cast<int>(dice.below(2))) % 3);
    });
  });
}

bool change_precision(Dice& dice, LoweredPlan& plan) {
  return change_block(dice, plan, [&](Block& block) {
    block.precision = block.precision == Precision::input ? Precision::accumulation : Precision::input;
    return true;
  });
}

bool shift_offset(Dice& dice, LoweredPlan& plan) {
  return change_block(dice, plan, [&](Block& block) {
    const int64_t row = block.row_stride * element_bytes(block, plan.request.shape);
    return relocate(plan, block, [&] { block.offset_bytes += dice.coin() || block.offset_bytes < row ? row : -row; });
  });
}

bool change_row_stride(Dice& dice, LoweredPlan& plan) {
  return change_block(dice, plan, [&](Block& block, OperationPlace at) {
    // Of what is copied or cleared, no more than one row may be read later.
    const auto& body = operation_at(plan, at).body;
    if (block.rows.size() < 2 || std::holds_alternative<Copy>(body) || std::holds_alternative<Clear>(body))
      return false;
    block.row_stride += dice.coin() ? 1 : -1;
    return true;
  });
}

// A buffer is moved, with all its uses, onto a block that is still to be read.
bool overlap_live_block(Dice& dice, LoweredPlan& plan) {
  struct Place {
    PhasePlace phase;
    size_t from;         // first operation of the moved buffer
    int64_t begin, end;  // of the moved buffer
    int64_t target;
  };
  std::vector<Place> places;
  const proofs::Sizes sizes(plan.request.shape);
  for (const PhasePlace phase : phase_places(plan)) {
    const auto blocks = blocks_of(plan, phase);
    for (size_t reader = 1; reader < blocks.size(); ++reader) {
      for (const BlockPlace& read : blocks[reader]) {
        if (read.access == Access::write || read.block->buffer != BufferId::arena) continue;
        bool exists = false;      // the read block has its content before `writer`
        std::vector<Place> last;  // since that was written
        for (size_t writer = 0; writer < reader; ++writer) {
          for (const BlockPlace& write : blocks[writer]) {
            if (write.access == Access::read || write.block->buffer != BufferId::arena) continue;
            if (share_bytes(plan, *write.block, *read.block)) continue;
            const proofs::Area area = sizes.area(*write.block);
            const int64_t target = read.block->offset_bytes;
            if (exists && !share_content(*write.block, *read.block) && target % 8 == area.begin % 8) {
              last.push_back(Place{phase, writer, area.begin, area.end(), target});
            }
          }
          for (const BlockPlace& write : blocks[writer]) {
            if (write.access == Access::read || !share_bytes(plan, *write.block, *read.block)) continue;
            exists = share_content(*write.block, *read.block);
            if (write.access == Access::write) last.clear();
          }
        }
        places.insert(places.end(), last.begin(), last.end());
      }
    }
  }
  if (places.empty()) return false;
  const Place place = dice.one_of(places);
  auto& operations = phase_at(plan, place.phase).operations;
  for (size_t i = place.from; i < operations.size(); ++i) {
    for_each_block(operations[i], plan.request.shape, [&](Block& block, Access) {
      if (block.buffer != BufferId::arena) return;
      const proofs::Area area = sizes.area(block);
      if (place.begin <= area.begin && area.end() <= place.end) block.offset_bytes += place.target - place.begin;
    });
  }
  return true;
}

// The end of what a rank uses of a buffer.
int64_t end_of(LoweredPlan& plan, int32_t rank, BufferId buffer) {
  const proofs::Sizes sizes(plan.request.shape);
  int64_t end = 0;
  for (const Phase& phase : plan.programs[static_cast<size_t>(rank)].phases) {
    for (const Operation& operation : phase.operations) {
      for_each_block(operation, plan.request.shape, [&](const Block& block, Access) {
        if (block.buffer == buffer) end = std::max(end, sizes.area(block).end());
      });
    }
  }
  return end;
}

bool shrink(Dice& dice, LoweredPlan& plan, BufferId buffer) {
  std::vector<int32_t> ranks;
  for (int32_t rank = 0; rank < plan.request.num_ranks(); ++rank) {
    if (end_of(plan, rank, buffer) > 0) ranks.push_back(rank);
  }
  if (ranks.empty()) return false;
  const int32_t rank = dice.one_of(ranks);
  plan.programs[static_cast<size_t>(rank)].buffer(buffer).bytes = end_of(plan, rank, buffer) - 1;
  return true;
}

bool shrink_arena(Dice& dice, LoweredPlan& plan) { return shrink(dice, plan, BufferId::arena); }
bool shrink_saved(Dice& dice, LoweredPlan& plan) { return shrink(dice, plan, BufferId::saved); }

// Something that backward needs is in a buffer that forward's end empties.
bool end_saved_with_phase(Dice&, LoweredPlan& plan) {
  for (RankProgram& program : plan.programs) {
    if (program.buffer(BufferId::saved).bytes == 0) continue;
    program.buffer(BufferId::saved).lifetime = Lifetime::phase;
    return true;
  }
  return false;
}

bool exceed_budget(Dice&, LoweredPlan& plan) {
  int64_t peak = 0;
  for (const RankProgram& programs : plan.programs) {
    peak = std::max(peak, programs.bytes(Lifetime::phase) + programs.bytes(Lifetime::step));
  }
  if (peak < 2) return false;
  plan.request.options.memory_budget_bytes = peak - 1;
  return true;
}

// One token at the border of a home span moves to another rank.
bool move_home_of_token(Dice& dice, LoweredPlan& plan) {
  const int32_t num_ranks = plan.placement.num_ranks();
  if (num_ranks < 2) return false;
  std::vector<std::vector<PlacedSpan>> spans;
  std::vector<int32_t> holders;
  for (int32_t rank = 0; rank < num_ranks; ++rank) {
    spans.push_back(plan.placement.spans(Rank(rank)));
    if (!spans.back().empty()) holders.push_back(rank);
  }
  const int32_t from = dice.one_of(holders);
  const int32_t to = (from + 1 + static_cast<int32_t>(dice.below(static_cast<size_t>(num_ranks - 1)))) % num_ranks;
  PlacedSpan& placed = dice.one_of(spans[static_cast<size_t>(from)]);
  const int64_t token = dice.coin() ? placed.span.begin++ : --placed.span.end;
  spans[static_cast<size_t>(to)].push_back(PlacedSpan{placed.document, Span{token, token + 1}});
  plan.placement = Placement(plan.request.documents, std::move(spans));
  return true;
}

constexpr Mutation kBlockMutations[] = {
    {"rows shifted", shift_rows},
    {"rows and offset shifted", shift_rows_and_offset},
    {"rows shortened", shorten_rows},
    {"rows lengthened", lengthen_rows},
    {"heads shifted", shift_heads},
    {"head dropped", drop_head},
    {"document changed", change_document},
    {"tensor renamed", rename_tensor},
    {"buffer changed", change_buffer},
    {"precision changed", change_precision},
    {"offset shifted", shift_offset},
    {"row stride changed", change_row_stride},
    {"buffer moved over a live block", overlap_live_block},
    {"arena shrunk", shrink_arena},
    {"saved shrunk", shrink_saved},
    {"saved ends with its phase", end_saved_with_phase},
    {"budget exceeded", exceed_budget},
    {"token moved to another home", move_home_of_token},
};

}  // namespace

std::span<const Mutation> block_mutations() { return kBlockMutations; }

}  // namespace evenspan::test
