// Proof 5: blocks stay inside their buffers and the peak keeps the budget. That live blocks never overlap is part of
// the dataflow proof: who overwrites a live block takes it from its reader.
#include "plan/verify/proof.h"
#include "plan/visit.h"

namespace evenspan::plan::proofs {
namespace {

void prove_blocks(const LoweredPlan& plan, const Sizes& sizes, int32_t rank, bool backward) {
  const Program& program = program_of(plan, rank, backward);
  const int64_t saved_bytes = plan.programs[static_cast<size_t>(rank)].saved_bytes;
  for (size_t i = 0; i < program.operations.size(); ++i) {
    for_each_block(program.operations[i], plan.request.shape, [&](const Block& block, Access) {
      if (block.storage == Storage::home) return;
      const int64_t bytes = block.storage == Storage::arena ? program.arena_bytes : saved_bytes;
      if (sizes.area(block).end() <= bytes) return;
      refute(Proof::memory, Site{rank, static_cast<int32_t>(i), backward}, describe(block), " ends at byte ",
             sizes.area(block).end(), " of ", bytes);
    });
  }
}

}  // namespace

void prove_memory(const LoweredPlan& plan) {
  const Sizes sizes(plan.request.shape);
  const int64_t budget = plan.request.options.memory_budget_bytes;
  for (int32_t rank = 0; rank < static_cast<int32_t>(plan.programs.size()); ++rank) {
    const auto& [forward, backward, saved_bytes] = plan.programs[static_cast<size_t>(rank)];
    const int64_t arena_bytes = std::max(forward.arena_bytes, backward.arena_bytes);
    if (forward.arena_bytes < 0 || backward.arena_bytes < 0 || saved_bytes < 0) {
      refute(Proof::memory, Site{rank}, "arenas of ", forward.arena_bytes, " and ", backward.arena_bytes,
             " bytes, saved ", saved_bytes, "; none is negative");
    }
    if (budget > 0 && (arena_bytes > budget || saved_bytes > budget - arena_bytes)) {
      refute(Proof::memory, Site{rank}, "an arena of ", arena_bytes, " bytes and ", saved_bytes,
             " saved bytes exceed the memory budget of ", budget);
    }
    prove_blocks(plan, sizes, rank, false);
    prove_blocks(plan, sizes, rank, true);
  }
}

}  // namespace evenspan::plan::proofs
