// Queries stay at home; keys and values go only where a tile needs them, once per receiver.
#include "plan/solve/placement_solver.h"
#include "plan/solve/rounds.h"
#include "plan/strategy/parts.h"
#include "plan/strategy/table.h"

namespace evenspan::plan {

Draft write_sequence_aware(const Request& request) {
  Placement placement(request.documents, place(request));
  std::vector<Task> tasks = tasks_with_queries_at_home(request, placement);
  return Draft{std::move(placement), std::move(tasks), {}, /*may_relay=*/true};
}

Traffic sequence_aware_traffic(const Request& request, const Placement& placement) {
  const int64_t token_bytes = RowBytes(request.shape).key_value;
  return Traffic{remote_key_tokens(request, placement) * token_bytes, most_remote_rounds(request)};
}

}  // namespace evenspan::plan
