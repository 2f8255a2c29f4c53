#include "evenspan/train/checkpoint.h"

#include <ATen/ops/empty.h>
#include <fcntl.h>
#include <nlohmann/json.hpp>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstdio>
#include <cstring>
#include <filesystem>

#include "evenspan/core/error.h"
#include "evenspan/nn/safetensors.h"

namespace evenspan::train {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

constexpr int kVersion = 1;
constexpr const char* kPrefix = "step-";
constexpr const char* kOptimizer = "optimizer.safetensors";
constexpr const char* kState = "trainer_state.json";

// (step, path) of the complete checkpoints, oldest first.
std::vector<std::pair<int64_t, fs::path>> list(const fs::path& folder) {
  std::vector<std::pair<int64_t, fs::path>> out;
  if (!fs::is_directory(folder)) return out;
  for (const auto& entry : fs::directory_iterator(folder)) {
    const int64_t step = checkpoint_step(entry.path().string());
    if (step >= 0 && entry.is_directory()) out.emplace_back(step, entry.path());
  }
  std::sort(out.begin(), out.end());
  return out;
}

void flush_folder(const fs::path& folder) {
  const int descriptor = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  const bool ok = descriptor >= 0 && ::fsync(descriptor) == 0;
  const int error = errno;
  if (descriptor >= 0) ::close(descriptor);
  if (!ok) fail(ErrorKind::resource, "[checkpoint] cannot flush ", folder.string(), ": ", std::strerror(error));
}

Json to_json(const TrainerState& t, const ShardedAdamW::State& s, const Config& config) {
  return {{"version", kVersion},
          {"step", t.step},
          {"tokens_seen", t.tokens_seen},
          {"optimizer_updates", s.num_updates},
          {"data",
           {{"epoch", t.cursor.epoch},
            {"next", t.cursor.next},
            {"fingerprint", t.data_fingerprint},
            {"seed", t.data_seed}}},
          {"model_seed", t.model_seed},
          {"config", to_toml(config)}};
}

}  // namespace

void save_checkpoint(const std::string& folder, const nn::ModelConfig& model, const ShardedAdamW& optimizer,
                     const ShardedAdamW::State& state, const TrainerState& trainer, const Config& config,
                     int64_t keep) {
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
    nn::write_safetensors((temporary / kOptimizer).string(), moments);
    nn::write_file((temporary / kState).string(), to_json(trainer, state, config).dump(2) + "\n");
    flush_folder(temporary);
    fs::remove_all(final_path);  // the same step of an earlier run of this folder
    fs::rename(temporary, final_path);
    flush_folder(folder);
    auto all = list(folder);
    for (size_t i = 0; keep > 0 && all.size() - i > static_cast<size_t>(keep); ++i) fs::remove_all(all[i].second);
  } catch (const fs::filesystem_error& e) {
    fail(ErrorKind::resource, "[checkpoint] cannot write ", final_path.string(), ": ", e.what());
  }
}

Checkpoint load_checkpoint(const std::string& path, const nn::ModelConfig& model, const ShardedAdamW& optimizer) {
  const fs::path root(path);
  if (!fs::exists(root / kState)) {
    fail_invalid("[checkpoint] ", path, " must be a checkpoint folder with ", kState, "; it is not");
  }
  const nn::ModelConfig stored = nn::load_model_config((root / "config.json").string());
  if (const auto differing = nn::differences(stored, model); !differing.empty()) {
    std::string text;
    for (const std::string& d : differing) text += (text.empty() ? "" : ", ") + d;
    fail_invalid("[checkpoint] ", path, " is of another model than model.config: ", text,
                 " (checkpoint against configuration); resume with the model that it was trained with");
  }
  Checkpoint out;
  try {
    const Json json = Json::parse(nn::read_file((root / kState).string()));
    if (json.at("version") != kVersion) {
      fail(ErrorKind::unsupported, "[checkpoint] ", path, " has version ", json.at("version").dump(),
           ", this program reads ", kVersion);
    }
    json.at("step").get_to(out.trainer.step);
    json.at("tokens_seen").get_to(out.trainer.tokens_seen);
    json.at("optimizer_updates").get_to(out.state.num_updates);
    json.at("data").at("epoch").get_to(out.trainer.cursor.epoch);
    json.at("data").at("next").get_to(out.trainer.cursor.next);
    json.at("data").at("fingerprint").get_to(out.trainer.data_fingerprint);
    json.at("data").at("seed").get_to(out.trainer.data_seed);
    json.at("model_seed").get_to(out.trainer.model_seed);
  } catch (const Json::exception& e) {
    fail_invalid("[checkpoint] ", path, ": ", kState, " is damaged: ", e.what());
  }
  const at::ScalarType type = optimizer.master_type();
  const nn::Parameters weights = nn::load_weights(path, model, type);
  const nn::SafetensorsFile moments((root / kOptimizer).string());
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

std::string checkpoint_path(const std::string& folder, int64_t step) {
  char name[32];
  std::snprintf(name, sizeof name, "%s%08lld", kPrefix, static_cast<long long>(step));
  return (fs::path(folder) / name).string();
}

int64_t checkpoint_step(const std::string& path) {
  const std::string name = fs::path(path).filename().string();
  int64_t step = -1;
  if (!name.starts_with(kPrefix)) return -1;
  const char* end = name.data() + name.size();
  const auto [rest, error] = std::from_chars(name.data() + std::strlen(kPrefix), end, step);
  return error == std::errc() && rest == end ? step : -1;
}

std::string latest_checkpoint(const std::string& folder) {
  const auto all = list(folder);
  return all.empty() ? std::string() : all.back().second.string();
}

}  // namespace evenspan::train
