// Uniform strategies in closed form, for more ranks than programs are written for: a ring has millions of tiles there.
#pragma once

#include <memory>

#include "evenspan/simulate/prediction.h"

namespace evenspan::simulate {

// Beyond so many ranks, uniform strategies are predicted by their formulas.
constexpr int32_t kMostUniformRanks = 64;

// Whether the strategy treats all documents alike and so has a formula. Throws invalid_argument for an unknown one.
bool has_formula(const std::string& strategy);

// The step of the slowest rank, as docs/simulator.md writes it down: rounds of attention with the next transfer beside
// them, all-to-alls before and after, transfers spread evenly over the links of each level. The tokens, work and sent
// bytes are those of the strategy's placement; memory, packing copies and the drift of ranks are left out.
// Throws unsupported for masks other than causal and full and for models with windows, and invalid_argument for a
// strategy without a formula. REQUIRES: as predict(); request.options.strategy is set.
Prediction predict_by_formula(const plan::Request& request, const Scenario& scenario);

// A lower bound of what the strategy's programs take: a part of the formula, of documents cut down to whole numbers of
// chunks (`striped`: of rounds of stripes) over the ranks. Formulas round up to whole chunks, so to a row on each rank
// for a document of a few tokens, where programs leave ranks and rounds out; with less of each document no rank has
// fewer rows in a program than there. 0 where no document has a chunk for each. Tests hold it against programs. One of
// `enough` seconds or more may be less than the formula's, and takes less time to find.
// Throws and REQUIRES: as predict_by_formula(), and has_formula().
double bound_by_formula(const plan::Request& request, const Scenario& scenario, double enough);

struct PlannedPrediction {
  Prediction prediction;
  std::shared_ptr<const plan::Plan> plan;  // null by formula
};
// Plans and simulates, or takes the formula where there is one and the ranks are more than kMostUniformRanks.
PlannedPrediction plan_and_predict(const plan::Request& request, const Scenario& scenario,
                                   Timeline timeline = Timeline::skip, const WorkPart& work = {});

}  // namespace evenspan::simulate
