#include "plan/solve/placement_solver.h"

#include <algorithm>
#include <cmath>
#include <tuple>
#include <utility>

#include "evenspan/plan/bound.h"
#include "plan/solve/fill.h"
#include "plan/solve/improve.h"
#include "plan/solve/span_work.h"

namespace evenspan::plan {
namespace {

using Ranks = std::vector<std::vector<PlacedSpan>>;

// Of the mean work.
constexpr double kEven = 1.003;      // a busiest rank that does not count as uneven
constexpr double kTolerance = 5e-4;  // of ranks that are to have as much work as they may
constexpr double kFewKeys = 0.03;    // of the keys that a ring moves

// What is aimed at for a rank's tokens, as a part of their slack. Documents are whole where they can be, so a rank may
// come out above that.
constexpr double kAims[] = {0.95, 0.8, 0.5, 0.0};

struct Start {
  double work;  // of the mean, that a rank may have
  double aim;
  double reach;  // only where keys are at most so many times the few ones, or a limit is broken
};
constexpr double kMostWork = BalanceLimits{}.work_max_over_mean;
constexpr Start kStarts[] = {
    {kEven, 0.8, HUGE_VAL}, {kMostWork, 0.8, 1.35}, {kMostWork, 0.7, 1.1}, {kMostWork, 0.5, 1.1}};
constexpr int64_t kMostMoves = 100'000;
constexpr int64_t kMovesPerSpan = 400;

// Ranks that have parts of the same documents lie together, in one node where that can be: what several of them need
// can then cross into the node once. A rank counts for the part of a document whose queries see most keys.
void sort_ranks(const Request& request, Ranks* ranks) {
  using Key = std::tuple<int64_t, DocumentId, int64_t>;  // longest documents first, from their ends
  std::vector<std::pair<Key, size_t>> order;
  for (size_t r = 0; r < ranks->size(); ++r) {
    Key key{0, DocumentId(request.documents.size()), 0};
    int64_t most = 0;
    for (const PlacedSpan& placed : (*ranks)[r]) {
      const int64_t length = request.documents[placed.document].length;
      if (placed.span.size() == length || placed.span.end <= most) continue;
      most = placed.span.end;
      key = {-length, placed.document, -placed.span.end};
    }
    order.emplace_back(key, r);
  }
  std::sort(order.begin(), order.end());
  Ranks sorted;
  for (const auto& [key, r] : order) sorted.push_back(std::move((*ranks)[r]));
  *ranks = std::move(sorted);
}

class Solver {
 public:
  explicit Solver(const Request& request)
      : request_(request),
        mean_tokens_(static_cast<double>(request.documents.total_tokens()) / request.num_ranks()),
        most_tokens_(mean_tokens_ * (1 + request.options.token_slack)) {
    for (int64_t d = 0; d < request.documents.size(); ++d) {
      const DocumentId id(d);
      mean_work_ += span_work(request, {id, Span{0, request.documents[id].length}}) / request.num_ranks();
    }
    goal_.most_work = mean_work_ * BalanceLimits{}.work_max_over_mean;
    goal_.most_tokens = static_cast<int64_t>(most_tokens_);
    goal_.few_keys = static_cast<int64_t>(kFewKeys * (request.num_ranks() - 1) *
                                          static_cast<double>(request.documents.total_tokens()));
  }

  Ranks run() {
    for (const double aim : kAims) {
      take_better(fill(request_, {tokens_for(aim), most_tokens_, 0, (kEven - 1) * mean_work_}));
      if (state_.within_limits(goal_)) break;
    }
    const int64_t moves =
        std::min(kMostMoves, kMovesPerSpan * (request_.documents.size() + int64_t{request_.num_ranks()}));
    for (const Start& start : kStarts) {
      if (state_.reaches(goal_)) break;
      const bool out_of_reach = static_cast<double>(state_.keys) > start.reach * static_cast<double>(goal_.few_keys);
      if (state_.within_limits(goal_) && out_of_reach) break;
      PlacementGoal goal = goal_;
      goal.most_work = start.work * mean_work_;
      const double tolerance = kTolerance * mean_work_;
      Ranks ranks = state_.keys <= goal_.few_keys  // only the limits are missing
                        ? ranks_
                        : fill(request_, {tokens_for(start.aim), most_tokens_, goal.most_work - tolerance, tolerance});
      improve(request_, goal, moves, &ranks);
      take_better(std::move(ranks));
    }
    sort_ranks(request_, &ranks_);
    return std::move(ranks_);
  }

 private:
  double tokens_for(double aim) const { return mean_tokens_ + aim * (most_tokens_ - mean_tokens_); }

  // Within the limits before above them, then the one with fewer keys, or nearer to the limits.
  void take_better(Ranks ranks) {
    const PlacementState state = state_of(request_, ranks);
    const auto order = [this](const PlacementState& s) {
      const double above = std::max(static_cast<double>(s.most_tokens) / most_tokens_, s.most_work / goal_.most_work);
      return s.within_limits(goal_) ? std::tuple(false, static_cast<double>(s.keys)) : std::tuple(true, above);
    };
    if (!ranks_.empty() && order(state) >= order(state_)) return;
    ranks_ = std::move(ranks);
    state_ = state;
  }

  const Request& request_;
  const double mean_tokens_, most_tokens_;
  double mean_work_ = 0;
  PlacementGoal goal_;
  Ranks ranks_;  // the best so far
  PlacementState state_;
};

}  // namespace

Ranks place(const Request& request) { return Solver(request).run(); }

}  // namespace evenspan::plan
