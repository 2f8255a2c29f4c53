// Plans for steps that run: the strategies of the table, and `auto`, for which a machine is simulated.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "evenspan/simulate/choose.h"

namespace evenspan::simulate {

constexpr const char* kAuto = "auto";

// The profile must have been measured for the model's attention. Throws invalid_argument where it was not, and for an
// invalid model.
Scenario scenario_of_run(const Profile& profile, const Model& model, Machine machine);

// choose() among the plans that keep the request's memory budget. Without one it is choose(); with one, every candidate
// of choose() whose plan keeps it is simulated as it runs then, and strategies by formula, which have no plan, are left
// out. Throws resource when no candidate keeps the budget; the text names the one that needs least, and how much.
Choice choose_within_budget(const plan::Request& request, const Scenario& scenario, Timeline timeline = Timeline::skip,
                            const WorkPart& work = {});

// Makes the topology and the cost model those of the scenario, and the documents those that its model's widest layers
// see (simulate/layers.h).
void weigh(const Scenario& scenario, plan::Request* request);

struct RunnablePlan {
  std::shared_ptr<const plan::Plan> plan;  // never null; its options name the strategy that made it
  std::optional<Choice> choice;            // of auto
  std::string note;                        // what a user should know of the choice; empty mostly
};

// The plan of `request.options.strategy`, a name of the table or kAuto. With a scenario the request is
// weighed by it. Where the shortest step is that of a strategy by formula, of which no plan is written on so many
// ranks, the plan is the best of the other candidates and the note says so. The same input gives the same plan on every
// rank. Throws as plan::make_plan() and choose_within_budget(), and invalid_argument for kAuto without a scenario.
// Threads: callable from several at once.
RunnablePlan plan_to_run(plan::Request request, const Scenario* scenario, const WorkPart& work = {});

}  // namespace evenspan::simulate
