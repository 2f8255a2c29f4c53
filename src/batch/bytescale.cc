// ByteScale's hybrid data parallelism with its DP-balance (arXiv 2502.21231): a document on any number of ranks, work
// to the ranks that are behind.
//
// As published: a document has as few ranks as hold it, any number of them; shorter ones go where they leave least
// room. Work goes to ranks that are more than a part of the slowest rank's time behind it, or to all where none is.
//
// Changed: the published ranks run different numbers of micro-batches. Here there is a barrier after each, so what such
// a rank would run beside one longer micro-batch of another is one micro-batch too, and its tokens fit together. A
// micro-batch ends where no rank behind has room for a document; ranks begin even again. Documents go longest first.
// Left out: buckets of even FLOPs, which keep lengths of one level in a step as that order does (a micro-batch that
// first used up its bucket was no better on recorded lengths), and selective offloading, which the cost model does not
// have. Where that leaves it open: the part is a fifth, the best of those tried on recorded lengths, and the ranks of a
// document are consecutive ones of those behind, of as few nodes as that allows.
#include <algorithm>
#include <limits>

#include "batch/groups.h"
#include "batch/table.h"

namespace evenspan::batch {
namespace {

constexpr double kBehind = 0.2;  // of the slowest rank's time

class ByteScaleFilling {
 public:
  ByteScaleFilling(std::span<const int64_t> lengths, const Cost& cost)
      : lengths_(lengths),
        cost_(cost),
        seconds_(static_cast<size_t>(cost.num_ranks), 0),
        room_(seconds_.size(), cost.capacity_tokens) {}

  // Takes the first document that ranks behind have room for; false: there is none.
  bool take_one(std::vector<DocumentIndex>* documents) {
    const std::vector<Rank> behind = ranks_behind();
    for (auto document = documents->begin(); document != documents->end(); ++document) {
      const std::vector<Rank> ranks = choose(behind, length_of(*document));
      if (ranks.empty()) continue;
      place(*document, ranks);
      documents->erase(document);
      return true;
    }
    return false;
  }

  MicroBatch result() {
    std::sort(shares_.begin(), shares_.end());
    return MicroBatch{std::move(shares_)};
  }

 private:
  int64_t length_of(DocumentIndex document) const { return lengths_[static_cast<size_t>(document)]; }
  double& seconds(Rank rank) { return seconds_[static_cast<size_t>(rank)]; }
  int64_t& room(Rank rank) { return room_[static_cast<size_t>(rank)]; }

  // Ascending; all ranks where none is behind.
  std::vector<Rank> ranks_behind() const {
    const double most = *std::max_element(seconds_.begin(), seconds_.end());
    const double least = *std::min_element(seconds_.begin(), seconds_.end());
    const double limit = least < (1 - kBehind) * most ? (1 - kBehind) * most : std::numeric_limits<double>::infinity();
    std::vector<Rank> out;
    for (size_t rank = 0; rank < seconds_.size(); ++rank) {
      if (seconds_[rank] < limit) out.push_back(Rank(static_cast<int64_t>(rank)));
    }
    return out;
  }

  // Empty: they have no room.
  std::vector<Rank> choose(const std::vector<Rank>& behind, int64_t length) {
    const auto degree = static_cast<size_t>(cost_.least_degree(length));
    const int64_t share = (length + cost_.least_degree(length) - 1) / cost_.least_degree(length);
    std::vector<Rank> fitting;
    for (const Rank rank : behind) {
      if (room(rank) >= share) fitting.push_back(rank);
    }
    if (fitting.size() < degree) return {};
    if (degree == 1) {
      return {*std::min_element(fitting.begin(), fitting.end(), [&](Rank a, Rank b) { return room(a) < room(b); })};
    }
    size_t best = 0;
    const auto num_nodes = [&](size_t first) {
      int64_t nodes = 1;
      for (size_t i = first + 1; i < first + degree; ++i) {
        if (cost_.node_of(fitting[i]) != cost_.node_of(fitting[i - 1])) ++nodes;
      }
      return nodes;
    };
    for (size_t first = 1; first + degree <= fitting.size(); ++first) {
      if (num_nodes(first) < num_nodes(best)) best = first;
    }
    const auto begin = fitting.begin() + static_cast<std::ptrdiff_t>(best);
    return {begin, begin + static_cast<std::ptrdiff_t>(degree)};
  }

  void place(DocumentIndex document, const std::vector<Rank>& ranks) {
    const int64_t length = length_of(document);
    const auto degree = static_cast<int32_t>(ranks.size());
    const double of_token = cost_.work(length) / static_cast<double>(length) + cost_.exchange(degree);
    for (int32_t i = 0; i < degree; ++i) {
      const Rank rank = ranks[static_cast<size_t>(i)];
      const int64_t tokens = length / degree + (i < length % degree ? 1 : 0);
      shares_.push_back(Share{document, rank, tokens});
      room(rank) -= tokens;
      seconds(rank) += of_token * static_cast<double>(tokens);
    }
  }

  std::span<const int64_t> lengths_;
  const Cost& cost_;
  std::vector<double> seconds_;  // [rank], micro_batch_seconds left out
  std::vector<int64_t> room_;    // [rank], tokens
  std::vector<Share> shares_;
};

}  // namespace

PlannedStep plan_bytescale(std::span<const int64_t> lengths, const Cost& cost, const PlannerOptions&,
                           const SolverSource&) {
  PlannedStep step;
  std::vector<DocumentIndex> documents = longest_first(lengths);
  while (!documents.empty()) {
    ByteScaleFilling filling(lengths, cost);
    while (filling.take_one(&documents)) {
    }
    step.plan.micro_batches.push_back(filling.result());
  }
  return step;
}

}  // namespace evenspan::batch
