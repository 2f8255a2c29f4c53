// The documents of a batch and their attention masks.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "evenspan/core/ids.h"
#include "evenspan/core/ranges.h"

namespace evenspan::plan {

// Which keys a query of the same document may see.
enum class MaskKind : uint8_t {
  causal,  // key <= query
  full,    // every key
  window,  // key <= query and query - key < extent
  prefix,  // key <= query or key < extent
};

struct Mask {
  MaskKind kind = MaskKind::causal;
  int64_t extent = 0;  // window: width, >= 1; prefix: length, >= 0; otherwise 0

  friend bool operator==(const Mask&, const Mask&) = default;
};

// "causal", "full", "window:128", "prefix:64". Throws invalid_argument for anything else.
Mask parse_mask(const std::string& text);
std::string to_string(const Mask& mask);

struct Document {
  int64_t length = 0;  // tokens, >= 1
  Mask mask;

  friend bool operator==(const Document&, const Document&) = default;
};

// An immutable, validated list of documents. Attention never crosses from one to another.
class Documents {
 public:
  Documents() = default;
  // Throws invalid_argument when the list is empty, a length is below 1, or a mask's extent is out of range.
  explicit Documents(std::vector<Document> documents);
  // The same mask for every document.
  Documents(const std::vector<int64_t>& lengths, Mask mask);

  int64_t size() const { return static_cast<int64_t>(documents_.size()); }
  const Document& operator[](DocumentId id) const { return documents_[static_cast<size_t>(id.value)]; }
  const std::vector<Document>& all() const { return documents_; }
  int64_t total_tokens() const { return total_tokens_; }

 private:
  std::vector<Document> documents_;
  int64_t total_tokens_ = 0;
};

// The keys that query `q` may see in a document; never empty for a query inside it.
Span allowed_keys(const Document& document, int64_t q);

// The keys that at least one query of `queries` may see (all masks here make that one interval).
Span needed_keys(const Document& document, Span queries);

// Whether both allow the same (query, key) pairs: a window that is wider than the document is causal. REQUIRES: as
// long.
bool allow_same_pairs(const Document& a, const Document& b);

// The number of allowed (query, key) pairs with the query in `queries` and the key in `keys`. Exact, in closed form.
int64_t num_pairs(const Document& document, Span queries, Span keys);
int64_t num_pairs(const Document& document, Span queries);

}  // namespace evenspan::plan
