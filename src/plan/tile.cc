#include "evenspan/plan/tile.h"

#include "plan/triangle.h"

namespace evenspan::plan {
namespace {

// Rows of a tile that needs a dense mask; bounds the mask's size and the pairs computed for nothing.
constexpr int64_t kMaskedRows = 512;
// Windows narrower than this are computed as one masked band per block of rows: their full part is not worth a call.
constexpr int64_t kNarrowWindow = 128;

class TileWriter {
 public:
  TileWriter(DocumentId id, HeadRange heads, std::vector<Tile>* tiles) : id_(id), heads_(heads), tiles_(*tiles) {}

  void add(TileKind kind, Span queries, Span keys) {
    if (!queries.empty() && !keys.empty()) tiles_.push_back(Tile{id_, queries, keys, kind, heads_});
  }

  // Pairs with key <= query or key < prefix.
  void add_causal(Span queries, Span keys, int64_t prefix) {
    const int64_t below = std::max(prefix, queries.begin);  // keys before this are seen by every row
    add(TileKind::full, queries, Span{keys.begin, std::min(keys.end, below)});
    const Span diagonal = Span{std::max(keys.begin, below), std::min(keys.end, queries.end)};
    if (diagonal.empty()) return;
    add(TileKind::causal, diagonal, diagonal);
    add(TileKind::full, Span{diagonal.end, queries.end}, diagonal);
  }

  // Pairs with key <= query and query - key < window.
  void add_window(Span queries, Span keys, int64_t window) {
    const bool narrow = window < kNarrowWindow;
    const int64_t step = narrow ? kNarrowWindow : std::min(window, kMaskedRows);
    for (int64_t begin = queries.begin; begin < queries.end; begin += step) {
      const Span rows = Span{begin, std::min(begin + step, queries.end)};
      const int64_t first = rows.begin - window + 1;  // the first key of the first row
      if (narrow) {
        const Span band = keys.intersect(Span{first, rows.end});
        add(TileKind::band, rows.intersect(Span{band.begin, band.end + window - 1}), band);
        continue;
      }
      add_causal(rows, keys.intersect(rows), 0);
      add(TileKind::full, rows, keys.intersect(Span{rows.end - window, rows.begin}));
      const Span edge = keys.intersect(Span{first, rows.end - window});
      add(TileKind::window, rows.intersect(Span{rows.begin, edge.end + window - 1}), edge);
    }
  }

 private:
  DocumentId id_;
  HeadRange heads_;
  std::vector<Tile>& tiles_;
};

}  // namespace

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
  if (queries.empty() || heads.empty()) return;
  keys = keys.intersect(needed_keys(document, queries));
  TileWriter writer(id, heads, tiles);
  switch (document.mask.kind) {
    case MaskKind::full:
      writer.add(TileKind::full, queries, keys);
      break;
    case MaskKind::causal:
      writer.add_causal(queries, keys, 0);
      break;
    case MaskKind::prefix:
      writer.add_causal(queries, keys, std::min(document.mask.extent, document.length));
      break;
    case MaskKind::window:
      writer.add_window(queries, keys, document.mask.extent);
      break;
  }
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
