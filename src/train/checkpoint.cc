#include "evenspan/train/checkpoint.h"

#include <ATen/ops/empty.h>
#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>

#include "evenspan/core/error.h"
#include "evenspan/nn/safetensors.h"
#include "files/input_file.h"

namespace evenspan::train {
namespace {

namespace fs = std::filesystem;

void flush_folder(const fs::path& folder) {
  const int descriptor = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  const bool ok = descriptor >= 0 && ::fsync(descriptor) == 0;
  const int error = errno;
  if (descriptor >= 0) ::close(descriptor);
  if (!ok) fail(ErrorKind::resource, "[checkpoint] cannot flush ", folder.string(), ": ", std::strerror(error));
}

}  // namespace

void save_checkpoint(const std::string& folder, const nn::ModelConfig& model, const Companions& companions,
                     const ShardedAdamW& optimizer, const ShardedAdamW::State& state, const TrainerState& trainer,
                     const Config& config, int64_t keep) {
  const fs::path final_path = checkpoint_path(folder, trainer.step);
  const fs::path temporary = fs::path(folder) / (".writing-" + final_path.filename().string());
  try {
    fs::remove_all(temporary);
    fs::create_directories(temporary);
    nn::NamedTensors weights;
    nn::NamedTensors moments;
    for (size_t i = 0; i < optimizer.specs().size(); ++i) {
      const std::string& parameter = optimizer.specs()[i].name;
      weights.emplace_back(parameter, optimizer.slice(state.masters, i));
      moments.emplace_back("first_moment." + parameter, optimizer.slice(state.first_moments, i));
      moments.emplace_back("second_moment." + parameter, optimizer.slice(state.second_moments, i));
    }
    nn::save_model(temporary.string(), model, weights);
    nn::write_safetensors((temporary / kOptimizerFile).string(), moments);
    TrainerState stored = trainer;
    stored.optimizer_updates = state.num_updates;
    stored.config = to_toml(config);
    nn::write_file((temporary / kStateFile).string(), to_json(stored));
    nn::write_file((temporary / kManifestFile).string(), make_manifest(temporary.string()));
    // Not in the manifest: a user may mend them.
    for (const auto& [name, contents] : companions) nn::write_file((temporary / name).string(), contents);
    flush_folder(temporary);
    fs::remove_all(final_path);  // the same step of an earlier run of this folder
    fs::rename(temporary, final_path);
    flush_folder(folder);
    if (keep > 0) remove_all_but(folder, keep);
  } catch (const fs::filesystem_error& e) {
    fail(ErrorKind::resource, "[checkpoint] cannot write ", final_path.string(), ": ", e.what());
  }
}

Checkpoint load_checkpoint(const std::string& path, const nn::ModelConfig& model, const ShardedAdamW& optimizer) {
  const fs::path root(path);
  require_whole(path);
  const nn::ModelConfig stored = nn::load_model_config((root / "config.json").string());
  if (const auto differing = nn::differences(stored, model); !differing.empty()) {
    std::string text;
    for (const std::string& d : differing) text += (text.empty() ? "" : ", ") + d;
    fail_invalid("[checkpoint] ", path, " is of another model than model.config: ", text,
                 " (checkpoint against configuration); resume with the model that it was trained with");
  }
  Checkpoint out;
  const std::string state_file = (root / kStateFile).string();
  out.trainer = parse_trainer_state(files::read_text(state_file, "checkpoint"), state_file);
  out.state.num_updates = out.trainer.optimizer_updates;
  if (const int64_t step = checkpoint_step(path); step >= 0 && step != out.trainer.step) {
    fail_invalid("[checkpoint] ", path, " holds step ", out.trainer.step, "; give the folder the name that it had");
  }
  const at::ScalarType type = optimizer.master_type();
  const nn::Parameters weights = nn::load_weights(path, model, type);
  const nn::SafetensorsFile moments((root / kOptimizerFile).string());
  const int64_t n = nn::num_elements(optimizer.specs());
  for (at::Tensor* flat : {&out.state.masters, &out.state.first_moments, &out.state.second_moments}) {
    *flat = at::empty({n}, type);
  }
  for (size_t i = 0; i < optimizer.specs().size(); ++i) {
    const nn::ParameterSpec& spec = optimizer.specs()[i];
    const auto moment = [&](const char* kind) {
      at::Tensor tensor = moments.tensor(kind + spec.name);
      if (tensor.sizes() != at::IntArrayRef(spec.shape) || tensor.scalar_type() != type) {
        fail_invalid("[checkpoint] ", path, ": ", kind, spec.name, " must be ", at::IntArrayRef(spec.shape), " of ",
                     type, ", it is ", tensor.sizes(), " of ", tensor.scalar_type(),
                     "; resume with the model.dtype of that run");
      }
      return tensor;
    };
    optimizer.slice(out.state.masters, i).copy_(weights.at(spec.name));
    optimizer.slice(out.state.first_moments, i).copy_(moment("first_moment."));
    optimizer.slice(out.state.second_moments, i).copy_(moment("second_moment."));
  }
  return out;
}

}  // namespace evenspan::train
