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
constexpr std::array<RowUse, 6> output_uses(Access access) {
  return {{{TensorName::query, Access::read},
           {TensorName::key, Access::read},
           {TensorName::value, Access::read},
           {TensorName::gate, Access::read},
           {TensorName::beta, Access::read},
           {TensorName::output, access}}};
}
// Of one that writes (or updates) the gradients of a part's operands.
constexpr std::array<RowUse, 11> gradient_uses(Access access) {
  return {{{TensorName::query, Access::read},
           {TensorName::key, Access::read},
           {TensorName::value, Access::read},
           {TensorName::gate, Access::read},
           {TensorName::beta, Access::read},
           {TensorName::grad_output, Access::read},
           {TensorName::grad_query, access},
           {TensorName::grad_key, access},
           {TensorName::grad_value, access},
           {TensorName::grad_gate, access},
           {TensorName::grad_beta, access}}};
}

}  // namespace evenspan::plan
