#ifdef EVENSPAN_WITH_CALIBRATE
#include <pybind11/stl.h>

#include "bindings/bindings.h"
#include "bindings/plan_handle.h"
#include "evenspan/calibrate/command.h"
#include "evenspan/simulate/prediction.h"

namespace evenspan::python {
namespace {

// Modelled seconds of one layer's attention, forward and backward, each begun by all ranks together.
std::tuple<double, double> predict(const calibrate::Calibration& self, const PlanHandle& plan) {
  simulate::Scenario scenario;
  scenario.profile = self.profile;
  scenario.machine = simulate::make_machine(scenario.profile, plan.plan->request.num_ranks(), 0);
  scenario.model.shape = plan.plan->request.shape;
  const simulate::Prediction prediction = simulate::predict(*plan.plan, scenario);
  return {prediction.forward.makespan_seconds, prediction.backward.makespan_seconds};
}

}  // namespace

void bind_calibrate(py::module_& m) {
  py::class_<calibrate::Command>(m, "CalibrateCommand")
      .def(py::init(&calibrate::parse_command), py::arg("words"))
      .def_readonly("help", &calibrate::Command::help)
      .def_readonly("ranks", &calibrate::Command::ranks)
      .def_property_readonly("device", [](const calibrate::Command& c) { return c.options.device; })
      .def_property(
          "ranks_per_node", [](const calibrate::Command& c) { return c.options.ranks_per_node; },
          [](calibrate::Command& c, int32_t ranks) { c.options.ranks_per_node = ranks; })
      .def_static("describe_options", &calibrate::describe_options)
      .def("run", &calibrate::run_command, Unlocked(), py::arg("communicator"))
      .def(
          "calibrate",
          [](const calibrate::Command& c, const comm::Communicator& communicator) {
            return calibrate::calibrate(c.options, communicator);
          },
          Unlocked(), py::arg("communicator"));
  py::class_<calibrate::Calibration>(m, "Calibration")
      .def_property_readonly("json", &calibrate::to_json)
      .def("predict", predict, Unlocked(), py::arg("plan"));
}

}  // namespace evenspan::python
#endif
