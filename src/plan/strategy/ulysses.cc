// Ulysses (arXiv 2309.14509): tokens are split outside attention, heads inside. Head counts need not divide: parts
// differ by one head, and kv heads go to every rank whose query heads use them.
#include "plan/strategy/parts.h"
#include "plan/strategy/table.h"

namespace evenspan::plan {

Draft write_ulysses(const Request& request) {
  const Request one = group_request(request, request.num_ranks());
  Placement placement(request.documents, {whole_documents(request.documents)});
  std::vector<Task> tasks = tasks_with_queries_at_home(one, placement);
  return split_heads(request, Draft{std::move(placement), std::move(tasks), {}}, request.num_ranks());
}

Traffic ulysses_traffic(const Request& request, const Placement& placement) {
  return Traffic{split_heads_traffic(request, placement, request.num_ranks()).sent_bytes, 2};
}

}  // namespace evenspan::plan
