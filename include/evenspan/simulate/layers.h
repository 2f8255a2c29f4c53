// The kinds of a model's softmax layers, and their plans of one batch. Hidden states never move between layers, so all
// kinds have one placement, that of the widest kind, and each its own tiles and moves on it.
#pragma once

#include <memory>
#include <vector>

#include "evenspan/plan/plan.h"
#include "evenspan/simulate/model.h"

namespace evenspan::simulate {

// The documents as layers with a window of so many keys see them; 0: as they are. Throws invalid_argument for masks
// that a window does not narrow, full and prefix.
plan::Documents seen_through(const plan::Documents& documents, int64_t window);

// Makes a request whose cost is that of the model, each softmax layer with the masks of the documents, one for the
// model's widest softmax layers, in the batch of these documents: a window for all layers narrows them. Layers on which
// they allow fewer pairs count by the token, by the batch's mean, since a window's work is where the tokens are;
// a placement is good for them when it is even in tokens. Without windows the request stays as it is. Throws as
// seen_through().
void plan_for_layers(const Model& model, plan::Request* request);

// The model's softmax layers on which its widest ones allow no more pairs in the batch than they do, these included.
// REQUIRES: the documents are those of a request for the widest layers.
int32_t num_layers_of(const plan::Documents& documents, const Model& model);

// The plan of layers with the window (0: none) on the placement of `base`: base itself where they allow the same pairs.
std::shared_ptr<const plan::Plan> plan_seen_through(std::shared_ptr<const plan::Plan> base, int64_t window);

// Layers that need a plan of their own.
struct LayerPlan {
  int32_t count = 0;
  std::shared_ptr<const plan::Plan> plan;
};
struct LayersOfPlan {
  int32_t num_base_layers = 0;    // softmax layers that `base` is the plan of
  std::vector<LayerPlan> others;  // on its placement
};
// REQUIRES: `base` was made for the model's widest softmax layers. Throws as plan::make_plan_on().
LayersOfPlan layers_of_plan(const plan::Plan& base, const Model& model);

}  // namespace evenspan::simulate
