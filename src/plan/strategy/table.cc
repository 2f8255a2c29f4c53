#include "plan/strategy/table.h"

#include <array>
#include <string>

#include "evenspan/core/error.h"
#include "evenspan/core/nearest.h"
#include "plan/strategy/parts.h"

namespace evenspan::plan {
namespace {

constexpr std::array<Strategy, 15> kStrategies = {{
    {"local", "whole documents on single ranks", "0 bytes in 0 steps", write_local, local_traffic, {}},
    {"ring",
     "equal chunks of every document; keys and values go around a ring",
     "(P-1) N 2KDe in P-1 steps",
     write_ring,
     ring_traffic,
     {.uniform = {{Layout::chunks, Circulation::keys}}}},
    {"zigzag",
     "a ring over chunks r and 2P-1-r of every document",
     "(P-1) N 2KDe in P-1 steps",
     write_zigzag,
     ring_traffic,
     {.uniform = {{Layout::zigzag, Circulation::keys}}}},
    {"striped",
     "a ring over stripes of every document, dealt in turn",
     "(P-1) N 2KDe in P-1 steps",
     write_striped,
     ring_traffic,
     {.uniform = {{Layout::stripes, Circulation::keys}}, .takes_stripe_tokens = true}},
    {"all_gather",
     "one stream in equal pieces; keys and values go to all",
     "(P-1) N 2KDe in at most 2 steps",
     write_all_gather,
     all_gather_traffic,
     {.uniform = {{Layout::stream, Circulation::gather}}}},
    {"zigzag_all_gather",
     "chunks r and 2P-1-r of every document; keys and values go to all",
     "(P-1) N 2KDe in at most 2 steps",
     write_zigzag_all_gather,
     all_gather_traffic,
     {.uniform = {{Layout::zigzag, Circulation::gather}}}},
    {"ulysses",
     "tokens split outside attention, heads inside",
     "sum over r of (N - n_r) (2H_r + 2K_r) De in 2 steps",
     write_ulysses,
     ulysses_traffic,
     {.uniform = {{Layout::stream, Circulation::heads}}}},
    {"usp",
     "ulysses inside groups, a zigzag ring across them",
     "sum over r of ((N_g - n_r) 2H_r + (N - n_r) 2K_r) De in at most 2P/u steps",
     write_usp,
     usp_traffic,
     {.uniform = {{Layout::zigzag, Circulation::keys_by_heads}}, .takes_ranks_per_group = true}},
    {"token_ring",
     "zigzag chunks; queries go around a ring, partial outputs straight home",
     "(rows on each hop) HDe + (rows seen away from home) H(D+1)a in 2(P-1) steps",
     write_token_ring,
     token_ring_traffic,
     {.uniform = {{Layout::zigzag, Circulation::queries}}}},
    {"balanced_ring",
     "a ring over half of the ranks; idle ranks take queries of busy ones",
     "(keys from elsewhere seen on r) 2KDe + (queries taken over) H(De + (D+1)a) in at most P steps",
     write_balanced_ring,
     balanced_ring_traffic,
     {.uniform = {{Layout::chunks, Circulation::halves}}}},
    {"mesh",
     "zigzag chunks; a rank gets queries of a - 1 others and keys of b - 1, a x b = P",
     "(queries from elsewhere) H(De + (D+1)a) + (keys from elsewhere) 2KDe in at most 2(a + b - 2) steps",
     write_mesh,
     mesh_traffic,
     {.uniform = {{Layout::zigzag, Circulation::tiles}}, .takes_ranks_per_group = true}},
    {"disaggregated",
     "equal tokens of one stream; queries move to ranks with less attention",
     "sum over r of (rows that r attends to and is not home to) 2HDe + |keys needed by r - home of r| 2KDe in 2 steps",
     write_disaggregated,
     disaggregated_traffic,
     {}},
    {"sequence_aware",
     "planned placement; keys and values only where a tile needs them",
     "sum over r of |keys needed by r - home of r| 2KDe in S steps",
     write_sequence_aware,
     sequence_aware_traffic,
     {.takes_token_slack = true}},
    {"hierarchical",
     "sequence_aware over groups, ulysses inside them",
     "sum over r of ((N_g - n_r) 2H_r + |keys needed by g - home of r| 2K_r) De in at most 2S + 2 steps",
     write_hierarchical,
     hierarchical_traffic,
     {.variants = Variants::groups_in_node,
      .takes_ranks_per_group = true,
      .takes_token_slack = true,
      .splits_all_heads = true}},
    {"mixed",
     "a plan per document: whole on a rank, heads split in a group, or cut over groups",
     "hierarchical's of the documents that a group shares, sequence_aware's of the others, in at most 2S + 2 steps",
     write_mixed,
     mixed_traffic,
     {.variants = Variants::groups, .takes_ranks_per_group = true}},
}};

}  // namespace

std::span<const Strategy> strategies() { return kStrategies; }

const Strategy& find_strategy(std::string_view name) {
  std::vector<std::string> names;
  for (const Strategy& strategy : kStrategies) {
    if (strategy.name == name) return strategy;
    names.emplace_back(strategy.name);
  }
  fail_invalid("[plan] there is no strategy \"", name, "\"", there_are(name, names));
}

}  // namespace evenspan::plan
