// Drafts that no strategy would write: any tile on any rank, whoever is home to its rows. Rows that a rank receives are
// not cut anew in a later round or for other heads (no draft may do that), so only documents with rectangular tiles use
// several rounds, and heads are cut at the borders of kv groups.
#pragma once

#include <random>
#include <vector>

#include "plan/strategy/parts.h"

namespace evenspan::test {

class RandomDraft {
 public:
  explicit RandomDraft(uint64_t seed) : random_(seed) {}

  // One to four documents of any mask, up to six ranks; small, so that every border is met.
  plan::Request request(plan::ElementType element) {
    plan::Request request;
    std::vector<plan::Document> documents(below(4) + 1);
    for (plan::Document& document : documents) {
      document.length = number(below(3) == 0 ? 60 : 12) + 1;
      document.mask.kind = static_cast<plan::MaskKind>(below(4));
      if (document.mask.kind == plan::MaskKind::window) document.mask.extent = number(document.length) + 1;
      if (document.mask.kind == plan::MaskKind::prefix) document.mask.extent = number(document.length);
    }
    request.documents = plan::Documents(std::move(documents));
    const int32_t kv_heads = static_cast<int32_t>(below(3)) + 1;
    request.shape = plan::AttentionShape{kv_heads * (static_cast<int32_t>(below(3)) + 1), kv_heads, 8, element};
    request.topology = plan::make_topology(static_cast<int32_t>(below(6)) + 1);
    return request;
  }

  plan::Draft draft(const plan::Request& request) {
    std::vector<std::vector<plan::PlacedSpan>> spans(static_cast<size_t>(request.num_ranks()));
    plan::Draft draft;
    for (int64_t d = 0; d < request.documents.size(); ++d) {
      const DocumentId document(d);
      const int64_t length = request.documents[document].length;
      for (const Span& span : cut<Span>(length)) spans[below(spans.size())].push_back({document, span});
      const bool any_round = request.documents[document].mask.kind == plan::MaskKind::full;
      std::vector<int32_t> rounds(spans.size());  // [rank]
      for (int32_t& round : rounds) round = static_cast<int32_t>(below(3));
      const std::vector<Span> keys = cut<Span>(length), query_parts = cut<Span>(length);
      for (const HeadRange& kv_heads : cut<HeadRange>(request.shape.num_kv_heads)) {
        const int32_t group = request.shape.group_size();
        const HeadRange heads{kv_heads.begin * group, kv_heads.end * group};
        for (const Span& queries : query_parts) {
          for (const Span& key_span : keys) {
            const size_t rank = below(spans.size());
            const int32_t round = any_round ? static_cast<int32_t>(below(3)) : rounds[rank];
            plan::attend(request, Rank(static_cast<int64_t>(rank)), round, {document, queries}, key_span, heads,
                         &draft.tasks);
          }
        }
      }
    }
    draft.placement = plan::Placement(request.documents, std::move(spans));
    return draft;
  }

 private:
  size_t below(size_t n) { return static_cast<size_t>(random_() % n); }
  int64_t number(int64_t n) { return static_cast<int64_t>(below(static_cast<size_t>(n))); }

  // [0, total) in up to four parts.
  template <class R>
  std::vector<R> cut(int64_t total) {
    std::vector<int64_t> cuts{0, total};
    for (size_t n = below(4); n > 0; --n) cuts.push_back(number(total));
    std::sort(cuts.begin(), cuts.end());
    std::vector<R> parts;
    for (size_t i = 0; i + 1 < cuts.size(); ++i) {
      R part;
      part.begin = static_cast<decltype(part.begin)>(cuts[i]);
      part.end = static_cast<decltype(part.end)>(cuts[i + 1]);
      if (!part.empty()) parts.push_back(part);
    }
    return parts;
  }

  std::mt19937_64 random_;
};

}  // namespace evenspan::test
