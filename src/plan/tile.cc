#include "evenspan/plan/tile.h"

#include "plan/mask_tiles.h"
#include "plan/triangle.h"

namespace evenspan::plan {
std::string_view to_string(TileKind kind) {
  switch (kind) {
    case TileKind::full:
      return "full";
    case TileKind::causal:
      return "causal";
    case TileKind::window:
      return "window";
    case TileKind::band:
      return "band";
  }
  return "";
}

void append_mask_tiles(const Document& document, DocumentId id, Span queries, Span keys, HeadRange heads,
                       std::vector<Tile>* tiles) {
  for_each_mask_tile(document, id, queries, keys, heads, [tiles](const Tile& tile) { tiles->push_back(tile); });
}

Span tile_keys(const Tile& tile, int64_t q, int64_t window) {
  Span keys = tile.keys;
  if (tile.kind == TileKind::causal || tile.kind == TileKind::band) keys.end = std::min(keys.end, q + 1);
  if (tile.kind == TileKind::window || tile.kind == TileKind::band) keys.begin = std::max(keys.begin, q - window + 1);
  return keys;
}

int64_t num_pairs(const Tile& tile, int64_t window) {
  const int64_t num_keys = tile.keys.size();
  // Pairs with query - key >= distance, summed over the rows.
  const auto pairs_from = [&](int64_t distance) {
    const int64_t shift = tile.keys.begin + distance;
    return capped_triangle(tile.queries.end - shift, num_keys) - capped_triangle(tile.queries.begin - shift, num_keys);
  };
  switch (tile.kind) {
    case TileKind::full:
      return tile.queries.size() * num_keys;
    case TileKind::causal:
      return pairs_from(0);
    case TileKind::window:
      return tile.queries.size() * num_keys - pairs_from(window);
    case TileKind::band:
      return pairs_from(0) - pairs_from(window);
  }
  return 0;
}

}  // namespace evenspan::plan
