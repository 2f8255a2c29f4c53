#include "evenspan/simulate/model.h"

#include "evenspan/core/error.h"

namespace evenspan::simulate {

void validate(const Model& model) {
  constexpr int64_t kMost = int64_t{1} << 31;
  if (model.num_layers < 1 || model.hidden < 1 || model.hidden > kMost || model.intermediate < 1 ||
      model.intermediate > kMost || model.vocabulary < 0 || model.vocabulary > kMost) {
    fail_invalid("[simulate] the model has ", model.num_layers, " layers, hidden size ", model.hidden,
                 ", intermediate size ", model.intermediate, " and a vocabulary of ", model.vocabulary,
                 "; each is at least 1 and at most ", kMost, " (the vocabulary may be 0)");
  }
  for (const LinearLayers& layers : model.linear) {
    if (layers.count < 1) fail_invalid("[simulate] the model has ", layers.count, " linear layers of a kind");
    plan::validate(layers.shape, model.states);
  }
  if (model.num_softmax_layers() < 0) {
    fail_invalid("[simulate] the model has ", model.num_layers, " layers, and ",
                 model.num_layers - model.num_softmax_layers(), " linear ones");
  }
}

}  // namespace evenspan::simulate
