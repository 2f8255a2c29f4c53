// The page that --html writes: plans as pictures, in one file that needs no network.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "evenspan/simulate/prediction.h"

namespace evenspan::cli {

// A plan of the page. Timelines and memory are drawn where the prediction has a timeline.
struct PagePlan {
  std::string name;
  std::shared_ptr<const plan::Plan> plan;
  simulate::Prediction prediction;
};

struct PageText {
  std::string title;
  std::string about;                           // a sentence or two below the title
  std::vector<std::vector<std::string>> rows;  // strategies side by side, heading first; empty: none
  std::string beside;                          // what the columns mean
};

// Placement, tokens and work, timeline, memory and bytes between ranks, of one plan at a time. REQUIRES: at least one
// plan, all for the same documents and ranks.
std::string plan_page(const PageText& text, const std::vector<PagePlan>& plans);

}  // namespace evenspan::cli
