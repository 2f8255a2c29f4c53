// Mesh-Attention (arXiv 2512.20968), of which StarTrail's teams (arXiv 2407.00611) are the tiles whose queries are a
// team's: attention as a matrix of P x P blocks, queries of a rank by keys of a rank, of which each rank computes a
// tile of a x b = P. It gets the queries of a - 1 ranks and the keys of b - 1, in which its own are, and sends a - 1
// partial outputs back. A ring is the tile 1 x P. Zigzag chunks make causal work even.
#include "plan/strategy/mesh.h"

#include <limits>

#include "plan/strategy/parts.h"
#include "plan/strategy/rows.h"
#include "plan/strategy/table.h"

namespace evenspan::plan {
namespace {

// `ranks_per_group` query ranks a tile; 0: the number for which least is sent when all see all.
int32_t query_ranks(const Request& request) {
  if (request.options.ranks_per_group > 0) return request.options.ranks_per_group;
  const RowBytes bytes(request.shape);
  int32_t best = 1;
  int64_t least = std::numeric_limits<int64_t>::max();
  for (int32_t a = 1; a <= request.num_ranks(); ++a) {
    if (request.num_ranks() % a != 0) continue;
    const int64_t sent = (a - 1) * (bytes.query + bytes.partial) + (request.num_ranks() / a - 1) * bytes.key_value;
    if (sent >= least) continue;
    least = sent;
    best = a;
  }
  return best;
}

}  // namespace

// The next to come is what most blocks wait for: queries meet all keys that are there, and keys all queries.
MeshTile mesh_tile(const Request& request, Rank rank) {
  const int32_t a = query_ranks(request), b = request.num_ranks() / a;
  const int32_t row = rank / a, column = rank % a;
  MeshTile tile{{{rank, 0}}, {{rank, 0}}};
  for (int32_t round = 1; round <= a - 1 + b - 1; ++round) {
    const auto num_queries = static_cast<int32_t>(tile.queries.size()),
               num_keys = static_cast<int32_t>(tile.keys.size());
    if (num_queries == a || (num_keys < b && num_queries >= num_keys)) {
      tile.keys.push_back({Rank(column + (row + num_keys) % b * a), round});
    } else {
      tile.queries.push_back({Rank(row * a + (column + num_queries) % a), round});
    }
  }
  return tile;
}

namespace {

// Calls f(operands, rows) with what of the queries, or of the keys, of other ranks the tile needs.
template <class F>
void for_each_fetched(const Request& request, const Placement& placement, const MeshTile& tile, bool queries, F&& f) {
  const auto& fetched = queries ? tile.queries : tile.keys;
  for (size_t i = 1; i < fetched.size(); ++i) {
    Rows rows;
    for (const Operands& other : queries ? tile.keys : tile.queries) {
      rows = join(rows, queries ? rows_seeing(request, placement, fetched[i].home, other.home)
                                : rows_seen(request, placement, other.home, fetched[i].home));
    }
    f(fetched[i], rows);
  }
}

}  // namespace

Draft write_mesh(const Request& request) {
  Draft draft{zigzag_placement(request), {}, {}};
  for (int32_t r = 0; r < request.num_ranks(); ++r) {
    const MeshTile tile = mesh_tile(request, Rank(r));
    for (const bool queries : {true, false}) {
      for_each_fetched(request, draft.placement, tile, queries, [&](const Operands& from, const Rows& rows) {
        for (const auto& [document, span] : rows) {
          draft.moves.push_back(Move{from.round, from.home, Rank(r), queries ? Operand::query : Operand::key_value,
                                     document, span, queries ? all_heads(request) : all_kv_heads(request)});
        }
      });
    }
    for (const Operands& queries : tile.queries) {
      for (const Operands& keys : tile.keys) {
        for (const PlacedSpan& rows : draft.placement.spans(queries.home)) {
          for (const Span& seen : draft.placement.spans_of(keys.home, rows.document)) {
            attend(request, Rank(r), std::max(queries.round, keys.round), rows, seen, all_heads(request), &draft.tasks);
          }
        }
      }
    }
  }
  return draft;
}

Traffic mesh_traffic(const Request& request, const Placement& placement) {
  const RowBytes bytes(request.shape);
  const int32_t a = query_ranks(request), b = request.num_ranks() / a;
  Traffic traffic{0, a - 1 + b - 1 + (a > 1 ? a - 1 + b - 1 : 0)};
  for (int32_t r = 0; r < request.num_ranks(); ++r) {
    const MeshTile tile = mesh_tile(request, Rank(r));
    for_each_fetched(request, placement, tile, true, [&](const Operands&, const Rows& rows) {
      traffic.sent_bytes += num_rows(rows) * (bytes.query + bytes.partial);
    });
    for_each_fetched(request, placement, tile, false, [&](const Operands&, const Rows& rows) {
      traffic.sent_bytes += num_rows(rows) * bytes.key_value;
    });
  }
  return traffic;
}

}  // namespace evenspan::plan
