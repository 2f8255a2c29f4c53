#include "evenspan/plan/documents.h"

#include <charconv>

#include "evenspan/core/error.h"
#include "plan/triangle.h"

namespace evenspan::plan {
namespace {

// More would overflow the pair counts, which grow with the square.
constexpr int64_t kMaxTokens = int64_t{1} << 31;

// Allowed pairs with query < n and key < x.
int64_t pairs_below(const Document& document, int64_t n, int64_t x) {
  switch (document.mask.kind) {
    case MaskKind::causal:
      return capped_triangle(n, x);
    case MaskKind::full:
      return n * x;
    case MaskKind::window:
      return capped_triangle(n, x) - capped_triangle(n - document.mask.extent, x);
    case MaskKind::prefix: {
      const int64_t prefix = std::min(document.mask.extent, document.length);
      if (x <= prefix) return n * x;
      if (n <= prefix) return n * prefix;
      return prefix * prefix + capped_triangle(n, x) - capped_triangle(prefix, x);
    }
  }
  return 0;
}

}  // namespace

Mask parse_mask(const std::string& text) {
  if (text == "causal") return Mask{MaskKind::causal, 0};
  if (text == "full") return Mask{MaskKind::full, 0};
  for (const auto& [word, kind] : {std::pair<std::string, MaskKind>{"window:", MaskKind::window},
                                   std::pair<std::string, MaskKind>{"prefix:", MaskKind::prefix}}) {
    if (!text.starts_with(word)) continue;
    int64_t extent = 0;
    const char* end = text.data() + text.size();
    const auto [at, error] = std::from_chars(text.data() + word.size(), end, extent);
    if (error == std::errc() && at == end && extent >= (kind == MaskKind::window ? 1 : 0)) return Mask{kind, extent};
  }
  fail_invalid("[plan] mask is \"", text, "\"; use causal, full, window:W with W >= 1, or prefix:P with P >= 0");
}

std::string to_string(const Mask& mask) {
  switch (mask.kind) {
    case MaskKind::causal:
      return "causal";
    case MaskKind::full:
      return "full";
    case MaskKind::window:
      return join_text("window:", mask.extent);
    case MaskKind::prefix:
      return join_text("prefix:", mask.extent);
  }
  return "";
}

Documents::Documents(std::vector<Document> documents) : documents_(std::move(documents)) {
  if (documents_.empty()) fail_invalid("[plan] the batch has no documents; give at least one");
  for (size_t d = 0; d < documents_.size(); ++d) {
    const auto& [length, mask] = documents_[d];
    if (length < 1) {
      fail_invalid("[plan] document ", d, " has ", length,
                   " tokens; lengths are positive, drop empty documents before planning");
    }
    if (mask.kind == MaskKind::window && mask.extent < 1) {
      fail_invalid("[plan] document ", d, " has a window of ", mask.extent, " keys; windows are at least 1");
    }
    if (mask.kind == MaskKind::prefix && mask.extent < 0) {
      fail_invalid("[plan] document ", d, " has a prefix of ", mask.extent, " tokens; prefixes are not negative");
    }
    if (length >= kMaxTokens - total_tokens_) {
      fail_invalid("[plan] document ", d, " has ", length, " tokens after ", total_tokens_,
                   " of the documents before it; a batch holds less than ", kMaxTokens, ", plan smaller batches");
    }
    total_tokens_ += length;
  }
}

namespace {
std::vector<Document> with_mask(const std::vector<int64_t>& lengths, Mask mask) {
  std::vector<Document> documents;
  documents.reserve(lengths.size());
  for (const int64_t length : lengths) documents.push_back(Document{length, mask});
  return documents;
}
}  // namespace

Documents::Documents(const std::vector<int64_t>& lengths, Mask mask) : Documents(with_mask(lengths, mask)) {}

Span allowed_keys(const Document& document, int64_t q) {
  switch (document.mask.kind) {
    case MaskKind::causal:
      return Span{0, q + 1};
    case MaskKind::full:
      return Span{0, document.length};
    case MaskKind::window:
      return Span{std::max<int64_t>(0, q + 1 - document.mask.extent), q + 1};
    case MaskKind::prefix:
      return Span{0, std::max(q + 1, std::min(document.mask.extent, document.length))};
  }
  return Span{};
}

namespace {

// The plainest mask that allows the same pairs.
Mask plainest_mask(const Document& document) {
  const auto [kind, extent] = document.mask;
  const bool causal = kind == MaskKind::causal || (kind == MaskKind::window && extent >= document.length) ||
                      (kind == MaskKind::prefix && extent <= 1);
  if (causal) return Mask{};
  if (kind == MaskKind::prefix && extent >= document.length) return Mask{MaskKind::full, 0};
  return document.mask;
}

}  // namespace

bool allow_same_pairs(const Document& a, const Document& b) {
  return a.length == 1 || plainest_mask(a) == plainest_mask(b);
}

Span needed_keys(const Document& document, Span queries) {
  if (queries.empty()) return Span{};
  return Span{allowed_keys(document, queries.begin).begin, allowed_keys(document, queries.end - 1).end};
}

int64_t num_pairs(const Document& document, Span queries, Span keys) {
  if (queries.empty() || keys.empty()) return 0;
  return (pairs_below(document, queries.end, keys.end) - pairs_below(document, queries.begin, keys.end)) -
         (pairs_below(document, queries.end, keys.begin) - pairs_below(document, queries.begin, keys.begin));
}

int64_t num_pairs(const Document& document, Span queries) {
  if (queries.empty()) return 0;
  return pairs_below(document, queries.end, document.length) - pairs_below(document, queries.begin, document.length);
}

}  // namespace evenspan::plan
