// Proof 5: blocks stay inside their buffers, and these keep the budget. That live blocks never overlap is part of
// the dataflow proof: who overwrites a live block takes it from its reader.
#include <algorithm>

#include "plan/verify/proof.h"
#include "plan/visit.h"

namespace evenspan::plan::proofs {
namespace {

void prove_blocks(const LoweredPlan& plan, const Sizes& sizes, int32_t rank, const Phase& phase) {
  for (size_t i = 0; i < phase.operations.size(); ++i) {
    for_each_block(phase.operations[i], plan.request.shape, [&](const Block& block, Access) {
      const Buffer& buffer = plan.programs[static_cast<size_t>(rank)].buffer(block.buffer);
      if (buffer.lifetime == Lifetime::caller || sizes.area(block).end() <= buffer.bytes) return;
      refute(Proof::memory, Site{rank, static_cast<int32_t>(i), phase.kind}, describe(block), " ends at byte ",
             sizes.area(block).end(), " of ", buffer.bytes);
    });
  }
}

}  // namespace

void prove_memory(const LoweredPlan& plan) {
  const Sizes sizes(plan.request.shape);
  const int64_t budget = plan.request.options.memory_budget_bytes;
  for (int32_t rank = 0; rank < static_cast<int32_t>(plan.programs.size()); ++rank) {
    const RankProgram& program = plan.programs[static_cast<size_t>(rank)];
    int64_t left = budget;
    std::string buffers;
    for (size_t b = 1; b < program.buffers.size(); ++b) {
      const int64_t bytes = program.buffers[b].bytes;
      left -= std::min(bytes, left + 1);
      buffers += join_text(b > 1 ? " + " : "", bytes, " of ", to_string(static_cast<BufferId>(b)));
    }
    if (budget > 0 && left < 0) {
      refute(Proof::memory, Site{rank}, buffers, " bytes exceed the memory budget of ", budget);
    }
    for (const Phase& phase : program.phases) prove_blocks(plan, sizes, rank, phase);
  }
}

}  // namespace evenspan::plan::proofs
