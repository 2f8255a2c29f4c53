// The table of live executables: the one global of the project. Torch names an entry by a number in a 0-d CPU tensor.
#pragma once

#include <ATen/core/Tensor.h>

#include <memory>

#include "run/entry.h"

namespace evenspan::run {

// A 0-d CPU int64 tensor that names `entry` and keeps it alive.
at::Tensor make_handle(std::shared_ptr<Executable::Entry> entry);

// Throws invalid_argument when the tensor names no live executable.
std::shared_ptr<Executable::Entry> find_entry(const at::Tensor& handle);

}  // namespace evenspan::run
