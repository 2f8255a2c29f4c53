// Every rank gets all keys and values of all others. `all_gather`: the batch is one stream in equal pieces (as in the
// training of Llama 3, arXiv 2407.21783); tiles run as soon as their keys are there. `zigzag_all_gather`: a rank has
// two chunks of every document, one from either end (as in Megatron-LM's context parallelism by all-gather), and begins
// when all is there, since keys that come apart would make more tiles than the transfer is worth.
//
// As in the collectives that these are made of elsewhere, a node gets a rank's keys once, at the rank with the same
// place in it, which passes them on inside.
#include "plan/strategy/parts.h"
#include "plan/strategy/table.h"

namespace evenspan::plan {
namespace {

class Nodes {
 public:
  explicit Nodes(const Request& request)
      : num_ranks_(request.num_ranks()), size_(std::min(request.topology.ranks_per_node(), num_ranks_)) {}

  int32_t num_nodes() const { return (num_ranks_ + size_ - 1) / size_; }
  int32_t node_of(int32_t rank) const { return rank / size_; }
  int32_t first(int32_t node) const { return node * size_; }
  int32_t end(int32_t node) const { return std::min(first(node) + size_, num_ranks_); }
  // The rank of the node that gets `from`'s keys first.
  int32_t entry(int32_t node, int32_t from) const {
    return node == node_of(from) ? from : first(node) + (from - first(node_of(from))) % (end(node) - first(node));
  }
  int32_t last_round() const { return num_nodes() > 1 ? 2 : 1; }

 private:
  const int32_t num_ranks_, size_;
};

Draft gather_draft(const Request& request, Placement placement, std::vector<Task> tasks) {
  const Nodes nodes(request);
  std::vector<Move> moves;
  size_t num_spans = 0;
  for (int32_t r = 0; r < request.num_ranks(); ++r) num_spans += placement.spans(Rank(r)).size();
  moves.reserve(num_spans * static_cast<size_t>(request.num_ranks() - 1));
  for (int32_t from = 0; from < request.num_ranks(); ++from) {
    const auto send = [&](int32_t round, int32_t via, int32_t to) {
      if (to == via || to == from) return;
      for (const PlacedSpan& placed : placement.spans(Rank(from))) {
        moves.push_back(
            Move{round, Rank(via), Rank(to), Operand::key_value, placed.document, placed.span, all_kv_heads(request)});
      }
    };
    for (int32_t node = 0; node < nodes.num_nodes(); ++node) {
      const int32_t entry = nodes.entry(node, from);
      send(1, from, entry);
      for (int32_t to = nodes.first(node); to < nodes.end(node); ++to) send(entry == from ? 1 : 2, entry, to);
    }
  }
  return Draft{std::move(placement), std::move(tasks), std::move(moves)};
}

}  // namespace

Placement stream_placement(const Request& request) {
  return Placement(request.documents, contiguous_spans(whole_documents(request.documents), request.num_ranks()));
}

Draft write_all_gather(const Request& request) {
  const Nodes nodes(request);
  Placement placement = stream_placement(request);
  std::vector<Task> tasks;
  for (int32_t r = 0; r < request.num_ranks(); ++r) {
    const int32_t node = nodes.node_of(r);
    for (const PlacedSpan& placed : placement.spans(Rank(r))) {
      std::vector<Span> in_node;
      for (int32_t other = nodes.first(node); other < nodes.end(node); ++other) {
        const auto spans = placement.spans_of(Rank(other), placed.document);
        in_node.insert(in_node.end(), spans.begin(), spans.end());
      }
      in_node = union_of(std::move(in_node));
      const Span needed = needed_keys(request.documents[placed.document], placed.span);
      const auto add = [&](int32_t round, const Span& keys) {
        attend(request, Rank(r), round, placed, keys, all_heads(request), &tasks);
      };
      const auto own = placement.spans_of(Rank(r), placed.document);
      for (const Span& keys : own) add(0, keys);
      for (const Span& near : in_node) {
        for (const Span& keys : subtract(near.intersect(needed), own)) add(1, keys);
      }
      for (const Span& keys : subtract(needed, in_node)) add(2, keys);
    }
  }
  return gather_draft(request, std::move(placement), std::move(tasks));
}

Draft write_zigzag_all_gather(const Request& request) {
  const Nodes nodes(request);
  Placement placement = zigzag_placement(request);
  std::vector<Task> tasks;
  for (int32_t r = 0; r < request.num_ranks(); ++r) {
    for (const PlacedSpan& placed : placement.spans(Rank(r))) {
      const Span keys = needed_keys(request.documents[placed.document], placed.span);
      attend(request, Rank(r), nodes.last_round(), placed, keys, all_heads(request), &tasks);
    }
  }
  return gather_draft(request, std::move(placement), std::move(tasks));
}

Traffic all_gather_traffic(const Request& request, const Placement& placement) {
  return Traffic{ring_traffic(request, placement).sent_bytes, Nodes(request).last_round()};
}

}  // namespace evenspan::plan
