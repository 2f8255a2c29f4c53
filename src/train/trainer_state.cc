// trainer_state.json of a checkpoint.
#include "evenspan/core/error.h"
#include "evenspan/train/checkpoint_files.h"
#include "files/json.h"
#include "files/json_fields.h"

namespace evenspan::train {
namespace {

constexpr int64_t kVersion = 2;
constexpr int64_t kMost = int64_t{1} << 53;  // of what is counted: whatever reads the file as doubles reads it exactly
constexpr const char* kWhat = "checkpoint";

}  // namespace

std::string to_json(const TrainerState& state) {
  const nlohmann::json json = {{"version", kVersion},
                               {"step", state.step},
                               {"tokens_seen", state.tokens_seen},
                               {"optimizer_updates", state.optimizer_updates},
                               {"data",
                                {{"epoch", state.cursor.epoch},
                                 {"next", state.cursor.next},
                                 {"fingerprint", state.data_fingerprint},
                                 {"seed", state.data_seed}}},
                               {"model_seed", state.model_seed},
                               {"config", state.config}};
  return json.dump(2) + "\n";
}

TrainerState parse_trainer_state(const std::string& text, const std::string& file) {
  const nlohmann::json json = files::parse_json(text, kWhat, file);
  const files::Fields in(json, kWhat, file);
  if (const int64_t version = in.whole("version"); version != kVersion) {
    fail(ErrorKind::unsupported, "[checkpoint] ", file, " has version ", version, ", this program reads ", kVersion,
         "; go on with the program that wrote it, or train from its weights by model.weights");
  }
  in.refuse_others({"version", "step", "tokens_seen", "optimizer_updates", "data", "model_seed", "config"});
  TrainerState state;
  state.step = in.whole_between("step", 0, kMost);
  state.tokens_seen = in.whole_between("tokens_seen", 0, kMost);
  state.optimizer_updates = in.whole_between("optimizer_updates", 0, state.step);
  const files::Fields data = in.object("data");
  data.refuse_others({"epoch", "next", "fingerprint", "seed"});
  state.cursor.epoch = data.whole_between("epoch", 0, kMost);
  state.cursor.next = data.whole_between("next", 0, kMost);
  state.data_fingerprint = data.word("fingerprint");
  state.data_seed = data.whole("seed");
  state.model_seed = in.whole("model_seed");
  state.config = in.text("config");
  return state;
}

}  // namespace evenspan::train
