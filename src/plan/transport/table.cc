#include <algorithm>
#include <array>

#include "evenspan/core/error.h"
#include "evenspan/core/nearest.h"
#include "plan/transport/transport.h"

namespace evenspan::plan {
namespace {

const std::array<Transport, 5>& table() {
  static const std::array<Transport, 5> kTable = {{
      {{"ring", "one state from part to part (LASP)", "(m-1) S in m-1 steps"}, scan_ring, traffic_ring},
      {{"all_gather", "every part's map to all later parts at once (LASP-2)",
        "m(m-1)/2 S + (m-1)(m-2)/2 M in at most 2 steps"},
       scan_all_gather,
       traffic_all_gather},
      {{"pipelined", "one state from part to part in blocks of heads (ZeCO)", "(m-1) S in m-1 steps of a block"},
       scan_pipelined,
       traffic_pipelined},
      {{"logarithmic", "a parallel prefix scan of maps", "about m log2(m) (S + M) in ceil(log2 m) steps", false},
       scan_logarithmic,
       traffic_logarithmic},
      {{"two_level", "all_gather inside a node, ring between nodes",
        "all_gather's in nodes, S between them and inside, in at most nodes + 1 steps"},
       scan_two_level,
       traffic_two_level},
  }};
  return kTable;
}

}  // namespace

const std::vector<TransportInfo>& transports() {
  static const std::vector<TransportInfo> kInfos = [] {
    std::vector<TransportInfo> infos;
    for (const Transport& transport : table()) infos.push_back(transport.info);
    return infos;
  }();
  return kInfos;
}

const Transport& find_transport(std::string_view name) {
  std::vector<std::string> names;
  for (const Transport& transport : table()) {
    if (transport.info.name == name) return transport;
    names.emplace_back(transport.info.name);
  }
  fail_invalid("[linear] there is no transport \"", name, "\"", there_are(name, names));
}

std::vector<Rank> distinct_ranks(const Chain& chain, int32_t first, int32_t last, Rank without) {
  std::vector<Rank> ranks;
  for (int32_t p = first; p < last; ++p) {
    const Rank rank = chain.rank(p);
    if (rank != without && std::find(ranks.begin(), ranks.end(), rank) == ranks.end()) ranks.push_back(rank);
  }
  return ranks;
}

}  // namespace evenspan::plan
