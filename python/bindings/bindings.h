// The parts of the module evenspan._evenspan; python/evenspan/_evenspan.pyi gives the types.
#pragma once

#include <pybind11/pybind11.h>

namespace evenspan::python {

namespace py = pybind11;
using Unlocked = py::call_guard<py::gil_scoped_release>;

void bind_plan(py::module_& m);       // Plan, Planner
void bind_run(py::module_& m);        // Communicator, Executable, attention; after bind_plan
void bind_linear(py::module_& m);     // SavedStates, linear_attention, short_convolution; after bind_run
void bind_calibrate(py::module_& m);  // CalibrateCommand, Calibration; after bind_run
void bind_train(py::module_& m);      // Summary, train; after bind_run

}  // namespace evenspan::python
