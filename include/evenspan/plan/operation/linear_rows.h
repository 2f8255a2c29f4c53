// The home tensors that operations of linear attention (run/linear_kernel.h) read and write, each of all rows of a
// part.
#pragma once

#include "evenspan/plan/operation/traits.h"

namespace evenspan::plan {

// What a part's map of states depends on.
inline constexpr std::array kMapUses = {RowUse{TensorName::key, Access::read}, RowUse{TensorName::value, Access::read},
                                        RowUse{TensorName::gate, Access::read}, RowUse{TensorName::beta, Access::read}};
// What its map of the states' gradients depends on.
inline constexpr std::array kGradientMapUses = {
    RowUse{TensorName::query, Access::read}, RowUse{TensorName::key, Access::read},
    RowUse{TensorName::gate, Access::read}, RowUse{TensorName::beta, Access::read},
    RowUse{TensorName::grad_output, Access::read}};

// Of an operation that writes (or updates) the outputs of a part.
template <Access access>
inline constexpr std::array kOutputUses = {
    RowUse{TensorName::query, Access::read}, RowUse{TensorName::key, Access::read},
    RowUse{TensorName::value, Access::read}, RowUse{TensorName::gate, Access::read},
    RowUse{TensorName::beta, Access::read},  RowUse{TensorName::output, access}};
// Of one that writes (or updates) the gradients of a part's operands.
template <Access access>
inline constexpr std::array kGradientUses = {
    RowUse{TensorName::query, Access::read}, RowUse{TensorName::key, Access::read},
    RowUse{TensorName::value, Access::read}, RowUse{TensorName::gate, Access::read},
    RowUse{TensorName::beta, Access::read},  RowUse{TensorName::grad_output, Access::read},
    RowUse{TensorName::grad_query, access},  RowUse{TensorName::grad_key, access},
    RowUse{TensorName::grad_value, access},  RowUse{TensorName::grad_gate, access},
    RowUse{TensorName::grad_beta, access}};

}  // namespace evenspan::plan
