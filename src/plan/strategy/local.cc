// Whole documents, each on one rank: nothing moves. The most work first, each to the rank with the least.
#include "plan/strategy/parts.h"
#include "plan/strategy/table.h"

namespace evenspan::plan {

Draft write_local(const Request& request) {
  struct Item {
    double work;
    DocumentId document;
  };
  std::vector<Item> items;
  for (int64_t d = 0; d < request.documents.size(); ++d) {
    const Document& document = request.documents[DocumentId(d)];
    const Span all{0, document.length};
    items.push_back(Item{request.cost.work(num_pairs(document, all), document.length), DocumentId(d)});
  }
  std::stable_sort(items.begin(), items.end(), [](const Item& a, const Item& b) { return a.work > b.work; });

  std::vector<std::vector<PlacedSpan>> spans(static_cast<size_t>(request.num_ranks()));
  std::vector<double> loads(spans.size(), 0);
  for (const Item& item : items) {
    const auto least = static_cast<size_t>(std::min_element(loads.begin(), loads.end()) - loads.begin());
    loads[least] += item.work;
    spans[least].push_back(PlacedSpan{item.document, Span{0, request.documents[item.document].length}});
  }
  Placement placement(request.documents, std::move(spans));
  std::vector<Task> tasks = tasks_with_queries_at_home(request, placement);
  return Draft{std::move(placement), std::move(tasks), {}};
}

Traffic local_traffic(const Request&, const Placement&) { return Traffic{0, 0}; }

}  // namespace evenspan::plan
