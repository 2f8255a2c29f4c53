#include "bindings/errors.h"

#include <pybind11/pybind11.h>

namespace evenspan::python {
namespace {

namespace py = pybind11;

const char* exception_name(ErrorKind kind) {
  switch (kind) {
    case ErrorKind::invalid_argument:
      return "InvalidArgumentError";
    case ErrorKind::unsupported:
      return "UnsupportedError";
    case ErrorKind::communication:
      return "CommunicationError";
    case ErrorKind::resource:
      return "ResourceError";
  }
  return "Error";
}

void set_python_error(const Error& error) {
  const py::object type = py::module_::import("evenspan._errors").attr(exception_name(error.kind()));
  PyErr_SetString(type.ptr(), error.what());
}

}  // namespace

void translate(std::exception_ptr thrown) {
  try {
    if (thrown) std::rethrow_exception(thrown);
  } catch (const Error& error) {
    set_python_error(error);
  }
}

void throw_to_python(const Error& error) {
  const py::gil_scoped_acquire gil;
  set_python_error(error);
  throw py::error_already_set();
}

}  // namespace evenspan::python
