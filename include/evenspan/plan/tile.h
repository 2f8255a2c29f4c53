// Tiles: the pieces of attention work.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "evenspan/plan/documents.h"

namespace evenspan::plan {

// Which pairs of a tile's rectangle count. `window` is the document mask's extent.
enum class TileKind : uint8_t {
  full,    // all
  causal,  // key <= query
  window,  // query - key < window
  band,    // both
};

std::string_view to_string(TileKind kind);

struct Tile {
  DocumentId document;
  Span queries;
  Span keys;
  TileKind kind = TileKind::full;
  HeadRange heads;  // query heads; the kv heads of their groups follow

  friend auto operator<=>(const Tile&, const Tile&) = default;
};

// Cuts the allowed pairs of `queries` x `keys` into tiles that kernels take: none empty, causal ones square, no query
// row without a key. Tiles that cover more rows come first. Appends to `tiles`.
void append_mask_tiles(const Document& document, DocumentId id, Span queries, Span keys, HeadRange heads,
                       std::vector<Tile>* tiles);

// The keys that row `q` (inside tile.queries) sees in the tile; `window` is the document mask's extent.
Span tile_keys(const Tile& tile, int64_t q, int64_t window);

// The pairs of a tile, per head.
int64_t num_pairs(const Tile& tile, int64_t window);

}  // namespace evenspan::plan
