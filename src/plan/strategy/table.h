// The functions that the strategy table lists, one file each.
#pragma once

#include "plan/strategy/strategy.h"

namespace evenspan::plan {

Draft write_local(const Request& request);
Draft write_ring(const Request& request);
Draft write_zigzag(const Request& request);
Draft write_striped(const Request& request);
Draft write_all_gather(const Request& request);
Draft write_zigzag_all_gather(const Request& request);
Draft write_ulysses(const Request& request);
Draft write_usp(const Request& request);
Draft write_token_ring(const Request& request);
Draft write_balanced_ring(const Request& request);
Draft write_mesh(const Request& request);
Draft write_disaggregated(const Request& request);
Draft write_sequence_aware(const Request& request);
Draft write_hierarchical(const Request& request);
Draft write_mixed(const Request& request);

Traffic local_traffic(const Request& request, const Placement& placement);
Traffic all_gather_traffic(const Request& request, const Placement& placement);
Traffic ulysses_traffic(const Request& request, const Placement& placement);
Traffic usp_traffic(const Request& request, const Placement& placement);
Traffic token_ring_traffic(const Request& request, const Placement& placement);
Traffic balanced_ring_traffic(const Request& request, const Placement& placement);
Traffic mesh_traffic(const Request& request, const Placement& placement);
Traffic disaggregated_traffic(const Request& request, const Placement& placement);
Traffic sequence_aware_traffic(const Request& request, const Placement& placement);
Traffic hierarchical_traffic(const Request& request, const Placement& placement);
Traffic mixed_traffic(const Request& request, const Placement& placement);

}  // namespace evenspan::plan
