// Hierarchical sequence-aware parallelism (HSAP, arXiv 2606.30460): documents are placed over groups of ranks, and the
// ranks of a group split heads. Between groups only the keys and values travel that some tile needs.
#include "plan/solve/rounds.h"
#include "plan/strategy/parts.h"
#include "plan/strategy/table.h"

namespace evenspan::plan {

Draft write_hierarchical(const Request& request) {
  const int32_t group_size = ranks_per_group(request);
  Draft draft = split_heads(request, write_sequence_aware(group_request(request, group_size)), group_size);
  draft.may_relay = true;
  return draft;
}

Traffic hierarchical_traffic(const Request& request, const Placement& placement) {
  const Traffic traffic = split_heads_traffic(request, placement, ranks_per_group(request));
  return Traffic{traffic.sent_bytes, 2 + 2 * most_remote_rounds(request)};
}

}  // namespace evenspan::plan
