// A plan as Python holds it.
#pragma once

#include <memory>
#include <optional>

#include "evenspan/plan/plan.h"

namespace evenspan::python {

// Measured once, when something of it is asked for. Threads: under the interpreter's lock.
class PlanHandle {
 public:
  explicit PlanHandle(std::shared_ptr<const plan::Plan> its_plan) : plan(std::move(its_plan)) {}
  const plan::Metrics& metrics() const {
    if (!metrics_) metrics_ = plan::measure(*plan);
    return *metrics_;
  }
  const std::shared_ptr<const plan::Plan> plan;

 private:
  mutable std::optional<plan::Metrics> metrics_;
};

}  // namespace evenspan::python
