// Proof 1: in each direction the segments of all ranks see each allowed (query, key) pair of each head exactly once.
#include <algorithm>

#include "plan/verify/proof.h"

namespace evenspan::plan::proofs {
namespace {

// The keys that a query sees, as seen by a segment or allowed by the mask: [max(keys.begin, query - window + 1),
// min(keys.end, query + 1)), where each of the two moving borders may be missing. Between cuts both borders are
// constant or follow the query.
struct KeyRange {
  Span keys;
  int64_t window = 0;     // 0: none
  int64_t not_after = 0;  // 0: any key; 1: only keys at most the query
  int64_t prefix = 0;     // keys below this are seen, too

  Span at(int64_t query) const {
    const int64_t begin = window > 0 ? std::max(keys.begin, query - window + 1) : keys.begin;
    const int64_t end = not_after > 0 ? std::min(keys.end, std::max(query + 1, prefix)) : keys.end;
    return Span{begin, end};
  }
  // Appends the queries where a border begins to follow the query, or ends to.
  void append_cuts(std::vector<int64_t>* cuts) const {
    if (window > 0) cuts->push_back(keys.begin + window - 1);
    if (not_after > 0) {
      cuts->push_back(keys.end - 1);
      cuts->push_back(prefix - 1);
    }
  }
};

struct Cover {
  Span queries;
  KeyRange range;
  const SegmentUse* use;
};

KeyRange allowed(const Document& document) {
  const auto [kind, extent] = document.mask;
  KeyRange range{Span{0, document.length}};
  range.not_after = kind == MaskKind::full ? 0 : 1;
  if (kind == MaskKind::window) range.window = std::min(extent, document.length);
  if (kind == MaskKind::prefix) range.prefix = std::min(extent, document.length);
  return range;
}

KeyRange seen(const Segment& segment, int64_t length) {
  KeyRange range{segment.key.rows};
  range.not_after = segment.kind == TileKind::causal || segment.kind == TileKind::band ? 1 : 0;
  const bool windowed = segment.kind == TileKind::window || segment.kind == TileKind::band;
  if (windowed) range.window = std::min(segment.window, length);
  return range;
}

class CoverageProver {
 public:
  CoverageProver(const LoweredPlan& plan, PhaseKind phase)
      : plan_(plan), uses_(segments_of(plan, phase)), phase_(phase) {}

  void prove() {
    const Documents& documents = plan_.request.documents;
    std::vector<std::vector<const SegmentUse*>> by_document(static_cast<size_t>(documents.size()));
    for (const SegmentUse& use : uses_)
      by_document[static_cast<size_t>(use.segment->query.document.value)].push_back(&use);
    for (int64_t d = 0; d < documents.size(); ++d) document(DocumentId(d), by_document[static_cast<size_t>(d)]);
  }

 private:
  void document(DocumentId id, const std::vector<const SegmentUse*>& uses) {
    std::vector<int32_t> cuts{0, plan_.request.shape.num_heads};
    for (const SegmentUse* use : uses) {
      cuts.push_back(use->segment->query.heads.begin);
      cuts.push_back(use->segment->query.heads.end);
    }
    std::sort(cuts.begin(), cuts.end());
    cuts.erase(std::unique(cuts.begin(), cuts.end()), cuts.end());
    const int64_t length = plan_.request.documents[id].length;
    for (size_t i = 0; i + 1 < cuts.size(); ++i) {
      const HeadRange heads{cuts[i], cuts[i + 1]};
      covers_.clear();
      for (const SegmentUse* use : uses) {
        const Segment& segment = *use->segment;
        if (segment.query.heads.contains(heads)) {
          covers_.push_back(Cover{segment.query.rows, seen(segment, length), use});
        }
      }
      rows(id, heads);
    }
  }

  // Between two cuts the same covers are active and all borders are linear with slope 0 or 1: what holds for the first
  // and the last query holds for all.
  void rows(DocumentId id, HeadRange heads) {
    const Document& document = plan_.request.documents[id];
    const KeyRange mask = allowed(document);
    std::vector<int64_t> cuts{0, document.length};
    mask.append_cuts(&cuts);
    for (const Cover& cover : covers_) {
      cuts.push_back(cover.queries.begin);
      cuts.push_back(cover.queries.end);
      cover.range.append_cuts(&cuts);
    }
    std::erase_if(cuts, [&](int64_t cut) { return cut < 0 || cut > document.length; });
    std::sort(cuts.begin(), cuts.end());
    cuts.erase(std::unique(cuts.begin(), cuts.end()), cuts.end());
    std::sort(covers_.begin(), covers_.end(),
              [](const Cover& a, const Cover& b) { return a.queries.begin < b.queries.begin; });
    std::vector<const Cover*> active;
    auto next = covers_.begin();
    for (size_t i = 0; i + 1 < cuts.size(); ++i) {
      const int64_t first = cuts[i];
      const int64_t last = cuts[i + 1] - 1;
      std::erase_if(active, [first](const Cover* cover) { return cover->queries.end <= first; });
      for (; next != covers_.end() && next->queries.begin == first; ++next) active.push_back(&*next);
      std::sort(active.begin(), active.end(), [first](const Cover* a, const Cover* b) {
        return a->range.at(first).begin < b->range.at(first).begin;
      });
      chain(id, heads, first, mask, active);
      if (last > first) chain(id, heads, last, mask, active);
    }
  }

  // The active ranges follow one another from the mask's first key to its last.
  void chain(DocumentId id, HeadRange heads, int64_t query, const KeyRange& mask,
             const std::vector<const Cover*>& active) const {
    const Span allowed = mask.at(query);
    int64_t at = allowed.begin;
    for (const Cover* cover : active) {
      const Span keys = cover->range.at(query);
      if (keys.begin == at && keys.end > at && keys.end <= allowed.end) {
        at = keys.end;
        continue;
      }
      const char* what = keys.begin > at ? "leaves out"
                         : keys.begin < allowed.begin || keys.end > allowed.end
                             ? "sees more than the mask allows, after"
                             : "sees again";
      refute(Proof::coverage, cover->use->site, "document ", id, ", heads ", describe(heads), ", query ", query,
             ": the segment of query rows ", describe(cover->queries), " and key rows ",
             describe(cover->use->segment->key.rows), " sees keys ", describe(keys), ", which ", what, " keys ",
             describe(Span{std::min(at, keys.begin), std::max(at, keys.begin)}), "; seen so far ",
             describe(Span{allowed.begin, at}), " of the allowed ", describe(allowed));
    }
    if (at != allowed.end) {
      refute(Proof::coverage, Site{-1, -1, phase_}, "document ", id, ", heads ", describe(heads), ", query ", query,
             ": no segment sees keys ", describe(Span{at, allowed.end}), " of the allowed ", describe(allowed));
    }
  }

  const LoweredPlan& plan_;
  std::vector<SegmentUse> uses_;
  PhaseKind phase_;
  std::vector<Cover> covers_;  // of the heads at hand
};

}  // namespace

void prove_coverage(const LoweredPlan& plan) {
  for (const PhaseKind phase : phases_of(plan.request.shape)) CoverageProver(plan, phase).prove();
}

}  // namespace evenspan::plan::proofs
