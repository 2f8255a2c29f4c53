#include "simulate/uniform_work.h"

#include <optional>

#include "evenspan/core/error.h"
#include "plan/strategy/parts.h"

namespace evenspan::simulate {

plan::Uniform uniform_of(const plan::Request& request) {
  const std::optional<plan::Uniform>& uniform = plan::find_strategy(request.options.strategy).traits.uniform;
  if (!uniform) fail_invalid("[simulate] ", request.options.strategy, " has no formula; simulate its programs");
  return *uniform;
}

Evenness evenness(const plan::Request& request, const plan::Uniform& uniform) {
  const int64_t ranks = request.num_ranks();
  switch (uniform.circulation) {
    case plan::Circulation::heads: {
      const int64_t num_parts = plan::head_split(request, static_cast<int32_t>(ranks)).num_row_parts;
      return {num_parts > 1 ? 2 * num_parts : 1, 0};
    }
    case plan::Circulation::keys_by_heads: {
      const int64_t members = ranks / plan::ranks_per_group(request);
      return {2 * members, members};
    }
    case plan::Circulation::gather:
      return {uniform.layout == plan::Layout::zigzag ? 2 * ranks : 1, 0};
    case plan::Circulation::keys:
    case plan::Circulation::queries:
    case plan::Circulation::halves:
    case plan::Circulation::tiles:
      break;
  }
  if (uniform.layout == plan::Layout::zigzag) return {2 * ranks, ranks};
  return {uniform.layout == plan::Layout::stripes ? request.options.stripe_tokens * ranks : ranks, 0};
}

plan::Placement UniformWork::gathered_stream() const {
  return uniform_.layout == plan::Layout::stream ? plan::stream_placement(request_) : plan::Placement();
}

std::vector<plan::PlacedSpan> UniformWork::gathered_spans(const plan::Placement& stream, Rank rank) const {
  if (stream.num_ranks() > 0) return stream.spans(rank);
  std::vector<plan::PlacedSpan> spans;
  for (int64_t d = 0; d < request_.documents.size(); ++d) {
    for_each_home(request_.documents[DocumentId(d)].length, rank.value, [&](const Span& span) {
      if (!span.empty()) spans.push_back({DocumentId(d), span});
    });
  }
  return spans;
}

std::vector<double> UniformWork::tokens() const {
  if (splits_heads()) {
    return std::vector<double>(static_cast<size_t>(num_ranks_),
                               static_cast<double>(request_.documents.total_tokens()) / num_ranks_);
  }
  std::vector<double> tokens(static_cast<size_t>(num_ranks_), 0);
  for_each_home_span([&tokens](size_t rank, const plan::Document&, const Span& span) {
    tokens[rank] += static_cast<double>(span.size());
  });
  return tokens;
}

std::vector<double> UniformWork::pairs() const {
  if (uniform_.circulation == plan::Circulation::halves) return pairs_of_halves();
  std::vector<double> pairs(static_cast<size_t>(num_ranks_), 0);
  for_each_home_span([&pairs](size_t rank, const plan::Document& document, const Span& span) {
    pairs[rank] += static_cast<double>(plan::num_pairs(document, span));
  });
  return pairs;
}

// Under a causal mask a rank has a chunk's own pairs and a whole block a round, but, of an even number of ranks, for
// the last round, in which the first half has none.
std::vector<double> UniformWork::pairs_of_halves() const {
  double diagonal = 0, block = 0, full = 0;
  for (const plan::Document& document : request_.documents.all()) {
    const double chunk = static_cast<double>(document.length) / num_ranks_;
    const bool causal = document.mask.kind == plan::MaskKind::causal;
    (causal ? diagonal : full) += causal ? chunk * (chunk + 1) / 2 : chunk * static_cast<double>(document.length);
    block += causal ? chunk * chunk : 0;
  }
  std::vector<double> pairs;
  pairs.reserve(static_cast<size_t>(num_ranks_));
  for (int32_t r = 0; r < num_ranks_; ++r) {
    const int32_t num_blocks = (num_ranks_ - 1) / 2 + (num_ranks_ % 2 == 0 && 2 * r >= num_ranks_ ? 1 : 0);
    pairs.push_back(diagonal + full + num_blocks * block);
  }
  return pairs;
}

double UniformWork::round(Pass pass, int32_t number, int32_t num_members, int32_t heads) const {
  const double operation = times_.times(pass).operation_seconds;
  if (uniform_.layout == plan::Layout::chunks) {
    return operation + over_documents([&](int64_t length, bool causal) {
             const int64_t chunk = part(length, num_members);
             const bool diagonal = causal && number == 0;
             return segment(pass, diagonal ? plan::TileKind::causal : plan::TileKind::full, chunk, chunk, heads);
           });
  }
  if (uniform_.layout == plan::Layout::stripes) {
    const int64_t stripe = request_.options.stripe_tokens;
    return operation + over_documents([&](int64_t length, bool causal) {
             const int64_t num_stripes = part(length, stripe);
             if (num_stripes <= number) return 0.0;
             // Rank `number` has most of those that attend to what was home at rank 0.
             const auto own = static_cast<double>(part(num_stripes - number, num_members));
             const double full =
                 segment(pass, plan::TileKind::full, std::min(length, stripe), std::min(length, stripe), heads);
             if (!causal) return own * static_cast<double>(part(num_stripes, num_members)) * full;
             const double diagonal = number > 0 ? full
                                                : segment(pass, plan::TileKind::causal, std::min(length, stripe),
                                                          std::min(length, stripe), heads);
             return own * (own - 1) / 2 * full + own * diagonal;
           });
  }
  // Zigzag: two chunks a rank; causal rounds after the first have two of the four pairs of chunks.
  return operation + over_documents([&](int64_t length, bool causal) {
           const int64_t chunk = part(length, int64_t{2} * num_members);
           const double full = segment(pass, plan::TileKind::full, chunk, chunk, heads);
           if (!causal) return 4 * full;
           return number > 0 ? 2 * full : full + 2 * segment(pass, plan::TileKind::causal, chunk, chunk, heads);
         });
}

std::vector<double> UniformWork::round_seconds(Pass pass, int32_t num_members, int32_t heads) const {
  std::vector<double> seconds;
  for (int32_t s = 0; s < num_members; ++s) {
    const bool alike = s > 1 && uniform_.layout != plan::Layout::stripes;
    seconds.push_back(alike ? seconds.back() : round(pass, s, num_members, heads));
  }
  return seconds;
}

int64_t UniformWork::zigzag_remote_key_tokens() const {
  int64_t num_tokens = 0;
  for (const plan::Document& document : request_.documents.all()) {
    for (int32_t r = 0; r < num_ranks_; ++r) {
      int64_t own = 0, end = 0;
      for_each_home(document.length, r, [&](const Span& span) {
        own += span.size();
        if (!span.empty()) end = span.end;
      });
      if (own > 0) num_tokens += (document.mask.kind == plan::MaskKind::full ? document.length : end) - own;
    }
  }
  return num_tokens;
}

}  // namespace evenspan::simulate
