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
  int32_t num_mlps = 0;
  for (const MlpLayers& mlp : model.mlps) {
    num_mlps += mlp.count;
    if (mlp.count < 1 || mlp.num_products < 1 || mlp.width < 1 || mlp.width > kMost || mlp.num_active < 1 ||
        mlp.num_active > mlp.num_experts || mlp.shared_width < 0 || mlp.shared_width > kMost) {
      fail_invalid("[simulate] the model has ", mlp.count, " MLPs of ", mlp.num_experts, " experts of width ",
                   mlp.width, ", of which a token passes ", mlp.num_active, ", and shared ones of width ",
                   mlp.shared_width, "; numbers and widths are at least 1, widths at most ", kMost,
                   ", and a token passes no more experts than there are");
    }
  }
  if (num_mlps > model.num_layers) {
    fail_invalid("[simulate] the model has ", model.num_layers, " layers, and ", num_mlps, " MLPs");
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
