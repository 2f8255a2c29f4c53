// evenspan._evenspan: plans, executables, calibration and the trainer for Python.
#include <memory>
#include <string>

#include "bindings/bindings.h"
#include "bindings/errors.h"
#include "evenspan/core/progress.h"

namespace evenspan::python {

PYBIND11_MODULE(TORCH_EXTENSION_NAME, m) {
  py::register_exception_translator(translate);
  m.attr("VERSION") = EVENSPAN_VERSION;
  py::class_<Progress>(m, "Progress")
      .def(py::init([](const std::string& what) { return std::make_unique<Progress>(what); }), py::arg("what"))
      .def("at", &Progress::at, py::arg("done"), py::arg("total"));
  bind_plan(m);
  bind_run(m);
  bind_linear(m);
#ifdef EVENSPAN_WITH_CALIBRATE
  bind_calibrate(m);
#endif
#ifdef EVENSPAN_WITH_TRAIN
  bind_train(m);
#endif
}

}  // namespace evenspan::python
