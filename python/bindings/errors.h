// Errors of Evenspan as the exceptions of python/evenspan/_errors.py.
#pragma once

#include <exception>

#include "evenspan/core/error.h"

namespace evenspan::python {

// For pybind: sets the exception of an evenspan::Error, and lets others pass. Threads: holds the interpreter's lock.
void translate(std::exception_ptr thrown);

// The same where pybind is not asked: a backward pass ends in torch. Takes the interpreter's lock.
[[noreturn]] void throw_to_python(const Error& error);

}  // namespace evenspan::python
