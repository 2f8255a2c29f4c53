// One implementation of the kernels for each kind of device.
#pragma once

#include "run/kernels.h"

namespace evenspan::run {

// [rows, keys], 0 where the call's window or band allows the pair and minus infinity elsewhere, in the query's type.
at::Tensor additive_mask(const KernelCall& call);
bool is_masked(const KernelCall& call);

// ATen's flash attention for the CPU (kernels_cpu.cc).
void attend_cpu(const std::vector<KernelCall>& calls);
void attend_gradient_cpu(const std::vector<KernelCall>& calls);

// Other devices (kernels_device.cc): torch's variable-length flash attention for 16-bit types where the device has it,
// and matrix products otherwise.
void attend_device(const std::vector<KernelCall>& calls);
void attend_gradient_device(const std::vector<KernelCall>& calls);

}  // namespace evenspan::run
