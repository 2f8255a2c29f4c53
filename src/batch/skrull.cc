// Skrull (arXiv 2505.19609): groups of one size, in which a document is local, whole on one rank, or distributed over
// all ranks of its group.
//
// As published, by summaries of the paper: documents, longest first, go to the group with least work (GDS). Those of
// each group are cut into micro-batches that mix long and short. In a micro-batch (DACP), the shortest first, a
// document is local on the rank with least work if that has room, else on the rank with most room, else distributed if
// all ranks have room for their shares, else a local document of the fullest rank is distributed and the document is
// tried again.
//
// Where these leave it open: a document, longest first, goes to its group's micro-batch with fewest tokens; the local
// document that is distributed is the longest of its rank. Changed: all groups have the same number of micro-batches,
// since there is a barrier after each: the first tried with which each has a place for its documents. The size of
// groups, which is configured there, is common_degree(). Left out: that work on local documents hides the all-to-alls
// of distributed ones, since nothing overlaps in the cost model, and the cut of a document into heads and tails, since
// shares have no place in a document here.
#include <algorithm>

#include "batch/groups.h"
#include "batch/table.h"

namespace evenspan::batch {
namespace {

// A micro-batch of one group.
class Members {
 public:
  Members(std::span<const int64_t> lengths, const Cost& cost, int32_t degree)
      : lengths_(lengths),
        cost_(cost),
        degree_(degree),
        local_(static_cast<size_t>(degree)),
        tokens_(local_.size(), 0),
        work_(local_.size(), 0) {}

  bool add(DocumentIndex document) {
    const int64_t length = length_of(document);
    do {
      for (const size_t member : {index_of(std::min_element(work_.begin(), work_.end()) - work_.begin()),
                                  index_of(std::min_element(tokens_.begin(), tokens_.end()) - tokens_.begin())}) {
        if (tokens_[member] + length + share(distributed_tokens_) > cost_.capacity_tokens) continue;
        local_[member].push_back(document);
        tokens_[member] += length;
        work_[member] += cost_.work(length);
        return true;
      }
      if (distribute(document)) return true;
    } while (distribute_local());
    return false;
  }

  void append(Rank first, std::vector<Share>* shares) const {
    int64_t turn = 0;
    for (const DocumentIndex document : distributed_) {
      deal(document, length_of(document), first, degree_, &turn, shares);
    }
    for (size_t member = 0; member < local_.size(); ++member) {
      const Rank rank(first + static_cast<int64_t>(member));
      for (const DocumentIndex document : local_[member]) shares->push_back({document, rank, length_of(document)});
    }
  }

 private:
  static size_t index_of(std::ptrdiff_t index) { return static_cast<size_t>(index); }
  int64_t length_of(DocumentIndex document) const { return lengths_[static_cast<size_t>(document)]; }
  int64_t share(int64_t tokens) const { return (tokens + degree_ - 1) / degree_; }

  bool distribute(DocumentIndex document) {
    const int64_t tokens = distributed_tokens_ + length_of(document);
    if (*std::max_element(tokens_.begin(), tokens_.end()) + share(tokens) > cost_.capacity_tokens) return false;
    distributed_.push_back(document);
    distributed_tokens_ = tokens;
    return true;
  }

  // The last local document of the fullest rank, which is its longest.
  bool distribute_local() {
    const size_t fullest = index_of(std::max_element(tokens_.begin(), tokens_.end()) - tokens_.begin());
    if (local_[fullest].empty()) return false;
    const DocumentIndex document = local_[fullest].back();
    local_[fullest].pop_back();
    tokens_[fullest] -= length_of(document);
    work_[fullest] -= cost_.work(length_of(document));
    return distribute(document);
  }

  std::span<const int64_t> lengths_;
  const Cost& cost_;
  int32_t degree_;
  std::vector<std::vector<DocumentIndex>> local_;  // [member], the shortest first
  std::vector<int64_t> tokens_;                    // [member], of its local documents
  std::vector<double> work_;                       // the same
  std::vector<DocumentIndex> distributed_;
  int64_t distributed_tokens_ = 0;
};

// Cuts the documents of each group, to the micro-batch with fewest tokens each; returns how many more micro-batches to
// try with, 0: `batches` has a place for all documents.
int64_t cut(const std::vector<Group>& groups, std::span<const int64_t> lengths, const Cost& cost,
            std::vector<MicroBatch>* batches) {
  for (size_t g = 0; g < groups.size(); ++g) {
    const int32_t degree = groups[g].degree;
    const int64_t room = degree * cost.capacity_tokens;
    std::vector<Group> parts(batches->size(), Group{degree, {}, 0, 0});
    int64_t left = 0;
    for (const DocumentIndex document : groups[g].documents) {
      Group& part = *std::min_element(parts.begin(), parts.end(),
                                      [](const Group& a, const Group& b) { return a.tokens < b.tokens; });
      const int64_t length = lengths[static_cast<size_t>(document)];
      if (part.tokens + length <= room) {
        part.add(document, lengths, cost);
      } else {
        left += length;
      }
    }
    if (left > 0) return std::max<int64_t>(1, left / room);
    for (size_t b = 0; b < parts.size(); ++b) {
      const std::vector<DocumentIndex>& own = parts[b].documents;
      Members members(lengths, cost, degree);
      if (!std::all_of(own.rbegin(), own.rend(), [&](DocumentIndex document) { return members.add(document); })) {
        return 1;
      }
      members.append(Rank(static_cast<int64_t>(g) * degree), &(*batches)[b].shares);
    }
  }
  for (MicroBatch& batch : *batches) std::sort(batch.shares.begin(), batch.shares.end());
  return 0;
}

}  // namespace

PlannedStep plan_skrull(std::span<const int64_t> lengths, const Cost& cost, const PlannerOptions&,
                        const SolverSource&) {
  const int32_t degree = common_degree(lengths, cost);
  std::vector<Group> groups(static_cast<size_t>(cost.num_ranks / degree), Group{degree, {}, 0, 0});
  for (const DocumentIndex document : longest_first(lengths)) {
    std::min_element(groups.begin(), groups.end(), [](const Group& a, const Group& b) {
      return a.work < b.work;
    })->add(document, lengths, cost);
  }
  int64_t tokens = 0;
  for (const Group& group : groups) tokens = std::max(tokens, group.tokens);
  const int64_t room = degree * cost.capacity_tokens;
  PlannedStep step;
  int64_t count = (tokens + room - 1) / room;
  for (int64_t more = 1; more > 0; count += more) {
    step.plan.micro_batches.assign(static_cast<size_t>(count), MicroBatch{});
    more = cut(groups, lengths, cost, &step.plan.micro_batches);
  }
  return step;
}

}  // namespace evenspan::batch
