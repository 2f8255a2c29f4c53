// Cutting what a mask allows into tiles.
#pragma once

#include <algorithm>

#include "evenspan/plan/tile.h"

namespace evenspan::plan {

// Calls f(tile) for each.
template <class F>
class TileWriter {
 public:
  // Rows of a tile that needs a dense mask; bounds the mask's size and the pairs computed for nothing.
  static constexpr int64_t kMaskedRows = 512;
  // Windows narrower than this are computed as one masked band per block of rows: their full part is not worth a call.
  static constexpr int64_t kNarrowWindow = 128;

  TileWriter(DocumentId id, HeadRange heads, F* f) : id_(id), heads_(heads), f_(*f) {}

  void add(TileKind kind, Span queries, Span keys) {
    if (!queries.empty() && !keys.empty()) f_(Tile{id_, queries, keys, kind, heads_});
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
  F& f_;
};

// Calls f(tile) for what append_mask_tiles() would append.
template <class F>
void for_each_mask_tile(const Document& document, DocumentId id, Span queries, Span keys, HeadRange heads, F f) {
  if (queries.empty() || heads.empty()) return;
  keys = keys.intersect(needed_keys(document, queries));
  TileWriter<F> writer(id, heads, &f);
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

}  // namespace evenspan::plan
