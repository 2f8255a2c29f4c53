#include "evenspan/batch/step.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "batch/groups.h"
#include "evenspan/core/error.h"

namespace evenspan::batch {
namespace {

// Of the shares of a document.
int32_t num_nodes(std::span<const Share> shares, const Cost& cost) {
  int32_t nodes = 0;
  int64_t last = -1;
  for (const Share& share : shares) {
    const int64_t node = cost.node_of(share.rank);
    if (node != last) ++nodes;
    last = node;
  }
  return nodes;
}

MicroBatchCost price(const MicroBatch& batch, std::span<const int64_t> lengths, const Cost& cost) {
  MicroBatchCost out;
  out.rank_seconds.assign(static_cast<size_t>(cost.num_ranks), cost.micro_batch_seconds);
  out.rank_exchange_seconds.assign(static_cast<size_t>(cost.num_ranks), 0);
  out.rank_tokens.assign(static_cast<size_t>(cost.num_ranks), 0);
  for_each_document(batch, [&](std::span<const Share> shares) {
    const int64_t length = lengths[static_cast<size_t>(shares.front().document)];
    const double exchange =
        cost.exchange(cost.paid_degree(static_cast<int32_t>(shares.size()), num_nodes(shares, cost)));
    const double seconds = cost.work(length) / static_cast<double>(length) + exchange;  // of a token
    for (const Share& share : shares) {
      const auto rank = static_cast<size_t>(share.rank);
      out.rank_tokens[rank] += share.tokens;
      out.rank_seconds[rank] += seconds * static_cast<double>(share.tokens);
      out.rank_exchange_seconds[rank] += exchange * static_cast<double>(share.tokens);
    }
    out.exchange_seconds += exchange * static_cast<double>(length);
  });
  out.seconds = *std::max_element(out.rank_seconds.begin(), out.rank_seconds.end());
  return out;
}

}  // namespace

StepCost price(const StepPlan& plan, std::span<const int64_t> lengths, const Cost& cost) {
  StepCost out;
  double busy = 0, exchanges = 0;
  for (const MicroBatch& batch : plan.micro_batches) {
    out.micro_batches.push_back(price(batch, lengths, cost));
    const MicroBatchCost& of = out.micro_batches.back();
    out.seconds += of.seconds;
    busy += std::accumulate(of.rank_seconds.begin(), of.rank_seconds.end(), 0.0);
    exchanges += of.exchange_seconds;
    out.peak_tokens = std::max(out.peak_tokens, *std::max_element(of.rank_tokens.begin(), of.rank_tokens.end()));
  }
  if (out.seconds > 0) {
    const double all = out.seconds * cost.num_ranks;
    out.idle_fraction = 1 - busy / all;
    out.exchange_fraction = exchanges / all;
  }
  return out;
}

std::string find_fault(const StepPlan& plan, std::span<const int64_t> lengths, const Cost& cost) {
  std::vector<int64_t> batch_of(lengths.size(), -1);
  for (size_t b = 0; b < plan.micro_batches.size(); ++b) {
    const std::vector<Share>& shares = plan.micro_batches[b].shares;
    if (shares.empty()) return join_text("micro-batch ", b, " is empty");
    if (!std::is_sorted(shares.begin(), shares.end())) return join_text("shares of micro-batch ", b, " are unsorted");
    std::vector<int64_t> tokens(static_cast<size_t>(cost.num_ranks), 0);
    for (size_t i = 0; i < shares.size(); ++i) {
      const Share& share = shares[i];
      if (share.document < 0 || static_cast<size_t>(share.document) >= lengths.size() || share.rank < 0 ||
          share.rank >= cost.num_ranks || share.tokens < 1) {
        return join_text("micro-batch ", b, " has ", share.tokens, " tokens of document ", share.document, " on rank ",
                         share.rank);
      }
      if (i > 0 && shares[i - 1].document == share.document && shares[i - 1].rank == share.rank) {
        return join_text("document ", share.document, " has two shares on rank ", share.rank);
      }
      tokens[static_cast<size_t>(share.rank)] += share.tokens;
    }
    std::string fault;  // the first one
    for_each_document(plan.micro_batches[b], [&](std::span<const Share> of) {
      if (!fault.empty()) return;
      const auto document = static_cast<size_t>(of.front().document);
      int64_t sum = 0;
      for (const Share& share : of) sum += share.tokens;
      if (batch_of[document] >= 0) {
        fault = join_text("document ", document, " is in two micro-batches");
      } else if (sum != lengths[document]) {
        fault = join_text("document ", document, " has ", lengths[document], " tokens, and its shares ", sum);
      }
      batch_of[document] = static_cast<int64_t>(b);
    });
    if (!fault.empty()) return fault;
    const auto most = std::max_element(tokens.begin(), tokens.end());
    if (*most > cost.capacity_tokens) {
      return join_text("rank ", most - tokens.begin(), " has ", *most, " tokens in micro-batch ", b, " and memory for ",
                       cost.capacity_tokens);
    }
  }
  const auto left = std::find(batch_of.begin(), batch_of.end(), -1);
  if (left != batch_of.end()) return join_text("document ", left - batch_of.begin(), " is in no micro-batch");
  return "";
}

void check_documents(std::span<const int64_t> lengths, const Cost& cost) {
  if (lengths.empty()) fail_invalid("[batch] there are no documents; a step needs at least one");
  for (size_t i = 0; i < lengths.size(); ++i) {
    if (lengths[i] < 1) {
      fail_invalid("[batch] document ", i, " has ", lengths[i], " tokens; lengths are positive, drop empty documents");
    }
    if (lengths[i] > cost.cluster_tokens()) {
      fail(ErrorKind::resource, "[batch] document ", i, " has ", lengths[i], " tokens and fits on no group: all ",
           cost.num_ranks, " ranks together hold ", cost.cluster_tokens(), ", ", cost.capacity_tokens,
           " each; raise the memory so that a rank holds ", (lengths[i] + cost.num_ranks - 1) / cost.num_ranks,
           ", use more ranks, or leave the document out");
    }
  }
}

StepBound lower_bound(std::span<const int64_t> lengths, const Cost& cost) {
  StepBound out;
  std::vector<int64_t> sorted(lengths.begin(), lengths.end());
  std::sort(sorted.begin(), sorted.end());
  int64_t tokens = 0;
  double work = 0;
  for (const int64_t length : sorted) {
    tokens += length;
    work += cost.work(length);
  }
  out.least_micro_batches = (tokens + cost.cluster_tokens() - 1) / cost.cluster_tokens();
  double elsewhere = 0;  // work of the lightest tokens that one micro-batch has no room for
  int64_t left = tokens - std::min(tokens, cost.cluster_tokens());
  for (const int64_t length : sorted) {
    const int64_t some = std::min(left, length);
    elsewhere += cost.work(length) * static_cast<double>(some) / static_cast<double>(length);
    left -= some;
  }
  elsewhere /= cost.num_ranks;
  // The mean over the ranks when each document is on the fewest ranks that let the step take `seconds`; infinite: none.
  const auto mean = [&](double seconds) {
    double exchange = 0;
    for (auto length = sorted.rbegin(); length != sorted.rend(); ++length) {
      const int32_t degree = degree_within(*length, seconds - elsewhere, cost);
      if (degree == 0) return std::numeric_limits<double>::infinity();
      if (degree == 1) break;  // and so are the shorter ones
      exchange += cost.exchange(degree) * static_cast<double>(*length);
    }
    return (work + exchange) / cost.num_ranks;
  };
  double below = mean(std::numeric_limits<double>::max());
  double above = below;
  while (mean(above) > above) above *= 2;
  for (int i = 0; i < 60 && below < above; ++i) {
    const double middle = below + (above - below) / 2;
    (mean(middle) > middle ? below : above) = middle;
  }
  out.work_seconds = work / cost.num_ranks;
  out.exchange_seconds = below - out.work_seconds;
  out.seconds = below + cost.micro_batch_seconds * static_cast<double>(out.least_micro_batches);
  return out;
}

}  // namespace evenspan::batch
