// The batch as one stream in equal pieces; every rank gets all keys and values of all others at once (as in the
// training of Llama 3, arXiv 2407.21783).
#include "plan/strategy/parts.h"
#include "plan/strategy/table.h"

namespace evenspan::plan {

Draft write_all_gather(const Request& request) {
  Placement placement(request.documents, contiguous_spans(whole_documents(request.documents), request.num_ranks()));
  std::vector<Task> tasks = tasks_with_queries_at_home(request, placement);
  std::vector<Move> moves;
  for (int32_t from = 0; from < request.num_ranks(); ++from) {
    for (const PlacedSpan& placed : placement.spans(Rank(from))) {
      for (int32_t to = 0; to < request.num_ranks(); ++to) {
        if (to == from) continue;
        moves.push_back(
            Move{1, Rank(from), Rank(to), Operand::key_value, placed.document, placed.span, all_kv_heads(request)});
      }
    }
  }
  return Draft{std::move(placement), std::move(tasks), std::move(moves)};
}

Traffic all_gather_traffic(const Request& request, const Placement& placement) {
  return Traffic{ring_traffic(request, placement).sent_bytes, 1};
}

}  // namespace evenspan::plan
