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
  int64_t narrower = 0;
  for (const auto& [count, window] : model.windows) {
    if (count < 1 || window <= narrower) {
      fail_invalid("[simulate] the model has ", count, " layers with a window of ", window, " keys after ", narrower,
                   "; windows ascend and have at least one layer");
    }
    narrower = window;
  }
  if (model.num_unwindowed_layers() < 0) {
    fail_invalid("[simulate] the model has ", model.num_softmax_layers(), " softmax layers, and ",
                 model.num_softmax_layers() - model.num_unwindowed_layers(), " with a window");
  }
}

}  // namespace evenspan::simulate
