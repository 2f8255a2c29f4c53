#include <utility>
#include <vector>

#include "evenspan/core/error.h"
#include "plan/strategy/parts.h"

namespace evenspan::plan {
namespace {

void check_lengths(const Documents& base, const Documents& documents) {
  if (documents.size() != base.size()) {
    fail_invalid("[plan] the placement is of ", base.size(), " documents, there are ", documents.size(),
                 " masks; give one for each document of the plan");
  }
  for (int64_t d = 0; d < base.size(); ++d) {
    const int64_t length = documents[DocumentId(d)].length, placed = base[DocumentId(d)].length;
    if (length != placed) {
      fail_invalid("[plan] document ", d, " has ", length, " tokens, and ", placed,
                   " in the plan whose placement it has; only masks may differ");
    }
  }
}

}  // namespace

std::shared_ptr<const Plan> make_plan_on(const Plan& base, const Documents& documents) {
  check_lengths(base.request.documents, documents);
  std::vector<Document> masked = documents.all();
  std::vector<bool> is_as_in_base;  // [document]
  for (size_t d = 0; d < masked.size(); ++d) {
    const Document& in_base = base.request.documents.all()[d];
    is_as_in_base.push_back(allow_same_pairs(in_base, masked[d]));
    if (is_as_in_base[d]) masked[d] = in_base;  // tiles are of the mask that they were cut by
  }
  const auto keeps = [&](DocumentId id) { return is_as_in_base[static_cast<size_t>(id.value)]; };
  Request request = base.request;
  request.documents = Documents(std::move(masked));
  Draft draft{base.placement, {}, {}, /*may_relay=*/base.direct};
  draft.tasks = tasks_with_queries_at_home(request, base.placement, [&](DocumentId id) { return !keeps(id); });
  for (const Task& task : base.tasks) {
    if (keeps(task.tile.document)) draft.tasks.push_back(task);
  }
  if (!base.direct) {
    for (const Move& move : base.moves) {
      if (move.operand != Operand::output && keeps(move.document)) draft.moves.push_back(move);
    }
  }
  return make_plan(std::move(request), std::move(draft));
}

}  // namespace evenspan::plan
