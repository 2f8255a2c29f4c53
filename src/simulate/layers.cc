#include "evenspan/simulate/layers.h"

#include <algorithm>
#include <utility>

#include "evenspan/core/error.h"

namespace evenspan::simulate {
namespace {

using plan::Document;
using plan::Documents;
using plan::MaskKind;

bool allow_same_pairs(const Documents& a, const Documents& b) {
  return std::equal(a.all().begin(), a.all().end(), b.all().begin(), plan::allow_same_pairs);
}

double num_pairs(const Documents& documents) {
  double pairs = 0;
  for (const Document& document : documents.all()) {
    pairs += static_cast<double>(plan::num_pairs(document, Span{0, document.length}));
  }
  return pairs;
}

// Layers by what they see of a batch.
struct Kinds {
  Documents widest;
  int32_t num_widest = 0;
  std::vector<std::pair<int32_t, Documents>> others;  // layers, and what they see
};

Kinds kinds_of(const Model& model, const Documents& documents) {
  Kinds kinds{documents, model.num_unwindowed_layers(), {}};
  if (kinds.num_widest == 0 && !model.windows.empty()) {
    kinds.widest = seen_through(documents, model.windows.back().window);
  }
  for (const auto& [count, window] : model.windows) {
    Documents seen = seen_through(documents, window);
    if (allow_same_pairs(seen, kinds.widest)) {
      kinds.num_widest += count;
    } else {
      kinds.others.emplace_back(count, std::move(seen));
    }
  }
  return kinds;
}

}  // namespace

Documents seen_through(const Documents& documents, int64_t window) {
  if (window == 0) return documents;
  std::vector<Document> narrowed = documents.all();
  for (size_t d = 0; d < narrowed.size(); ++d) {
    plan::Mask& mask = narrowed[d].mask;
    if (mask.kind != MaskKind::causal && mask.kind != MaskKind::window) {
      fail_invalid("[plan] layers with a window of ", window, " keys see causal documents, document ", d,
                   " has the mask ", to_string(mask), "; use causal or window:W, or a model without windows");
    }
    mask = {MaskKind::window, mask.kind == MaskKind::window ? std::min(mask.extent, window) : window};
  }
  return Documents(std::move(narrowed));
}

void plan_for_layers(const Model& model, plan::Request* request) {
  if (model.windows.empty()) return;
  Kinds kinds = kinds_of(model, request->documents);
  plan::CostModel& cost = request->cost;
  const double layer_pair_seconds = cost.pair_seconds / model.num_softmax_layers();
  for (const auto& [count, seen] : kinds.others) {
    cost.token_seconds += layer_pair_seconds * count * num_pairs(seen) / static_cast<double>(seen.total_tokens());
  }
  cost.pair_seconds = layer_pair_seconds * kinds.num_widest;
  cost.num_layers = kinds.num_widest;
  request->documents = std::move(kinds.widest);
}

int32_t num_layers_of(const Documents& documents, const Model& model) {
  return model.windows.empty() ? model.num_softmax_layers() : kinds_of(model, documents).num_widest;
}

std::shared_ptr<const plan::Plan> plan_seen_through(std::shared_ptr<const plan::Plan> base, int64_t window) {
  const Documents seen = seen_through(base->request.documents, window);
  if (allow_same_pairs(seen, base->request.documents)) return base;
  return plan::make_plan_on(*base, seen);
}

LayersOfPlan layers_of_plan(const plan::Plan& base, const Model& model) {
  LayersOfPlan layers{model.num_softmax_layers(), {}};
  if (model.windows.empty()) return layers;
  const Kinds kinds = kinds_of(model, base.request.documents);
  layers.num_base_layers = kinds.num_widest;
  for (const auto& [count, seen] : kinds.others) {
    layers.others.push_back({count, plan::make_plan_on(base, seen)});
  }
  return layers;
}

}  // namespace evenspan::simulate
