#include "plan/verify/contributions.h"

#include <algorithm>

namespace evenspan::plan::proofs {
namespace {

// splitmix64.
uint64_t scatter(uint64_t x) {
  x += 0x9e3779b97f4a7c15ULL;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ULL;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebULL;
  return x ^ (x >> 31);
}

}  // namespace

Contributions contribution(size_t segment) {
  const uint64_t n = 2 * static_cast<uint64_t>(segment);
  return Contributions{scatter(n), scatter(n + 1), 1};
}

void FinishedSets::add(DocumentId document, Span rows, HeadRange heads, const Contributions& part) {
  documents_[static_cast<size_t>(document.value)].parts.push_back(Expected{rows, heads, part});
}

void FinishedSets::seal() {
  for (PerDocument& document : documents_) {
    auto& cuts = document.head_cuts;
    for (const Expected& part : document.parts) {
      cuts.push_back(part.heads.begin);
      cuts.push_back(part.heads.end);
    }
    std::sort(cuts.begin(), cuts.end());
    cuts.erase(std::unique(cuts.begin(), cuts.end()), cuts.end());
    document.columns.resize(cuts.size());
    for (const Expected& part : document.parts) {
      const Contributions leaves{0 - part.set.low, 0 - part.set.high, -part.set.count};
      auto column = static_cast<size_t>(std::lower_bound(cuts.begin(), cuts.end(), part.heads.begin) - cuts.begin());
      for (; cuts[column] < part.heads.end; ++column) {
        document.columns[column].push_back(RowBreak{part.rows.begin, part.set});
        document.columns[column].push_back(RowBreak{part.rows.end, leaves});
      }
    }
    for (auto& steps : document.columns) {
      std::sort(steps.begin(), steps.end(), [](const RowBreak& a, const RowBreak& b) { return a.row < b.row; });
      Contributions set;
      size_t kept = 0;
      for (size_t i = 0; i < steps.size(); ++i) {
        const int64_t row = steps[i].row;
        set += steps[i].set;
        if (i + 1 == steps.size() || steps[i + 1].row != row) steps[kept++] = RowBreak{row, set};
      }
      steps.resize(kept);
    }
    document.parts = {};
  }
}

bool FinishedSets::is_finished(DocumentId id, Span rows, HeadRange heads, const Contributions& set,
                               Difference* difference) const {
  const PerDocument& document = documents_[static_cast<size_t>(id.value)];
  const auto& cuts = document.head_cuts;
  const auto differs = [&](Span where, HeadRange in, const Contributions& finished) {
    if (difference) *difference = Difference{where.intersect(rows), in.intersect(heads), finished};
    return false;
  };
  if (cuts.empty()) return differs(rows, heads, {});
  if (heads.begin < cuts.front()) return differs(rows, HeadRange{heads.begin, cuts.front()}, {});
  if (heads.end > cuts.back()) return differs(rows, HeadRange{cuts.back(), heads.end}, {});
  auto column = static_cast<size_t>(std::upper_bound(cuts.begin(), cuts.end(), heads.begin) - cuts.begin()) - 1;
  for (; cuts[column] < heads.end; ++column) {
    const HeadRange in{cuts[column], cuts[column + 1]};
    const auto& steps = document.columns[column];
    auto step = std::upper_bound(steps.begin(), steps.end(), rows.begin,
                                 [](int64_t row, const RowBreak& s) { return row < s.row; });
    if (step == steps.begin()) return differs(rows, in, {});
    for (--step; step != steps.end() && step->row < rows.end; ++step) {
      if (step->set == set) continue;
      const int64_t end = step + 1 == steps.end() ? rows.end : (step + 1)->row;
      return differs(Span{step->row, end}, in, step->set);
    }
  }
  return true;
}

Finished::Finished(const LoweredPlan& plan)
    : output(plan.request.documents.size()),
      grad_query(plan.request.documents.size()),
      grad_key_value(plan.request.documents.size()) {
  const auto forward = segments_of(plan, PhaseKind::forward);
  for (size_t i = 0; i < forward.size(); ++i) {
    const Block& query = forward[i].segment->query;
    output.add(query.document, query.rows, query.heads, contribution(i));
  }
  const auto backward = segments_of(plan, PhaseKind::backward);
  for (size_t i = 0; i < backward.size(); ++i) {
    const Block& query = backward[i].segment->query;
    const Block& key = backward[i].segment->key;
    grad_query.add(query.document, query.rows, query.heads, contribution(i));
    grad_key_value.add(key.document, key.rows, key.heads, contribution(i));
  }
  output.seal();
  grad_query.seal();
  grad_key_value.seal();
}

}  // namespace evenspan::plan::proofs
