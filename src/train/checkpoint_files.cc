// Folders of checkpoints, and the manifest that binds the files of one together.
#include "evenspan/train/checkpoint_files.h"

#include <algorithm>
#include <charconv>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <vector>

#include "evenspan/core/error.h"
#include "files/checksum.h"
#include "files/json.h"
#include "files/json_fields.h"

namespace evenspan::train {
namespace {

namespace fs = std::filesystem;

constexpr const char* kPrefix = "step-";

// Paths in a folder, in order; none of a folder that is not there.
std::vector<fs::path> entries(const fs::path& folder) {
  std::error_code error;
  std::vector<fs::path> paths;
  for (fs::directory_iterator it(folder, error), end; !error && it != end; it.increment(error)) {
    paths.push_back(it->path());
  }
  if (error && error != std::errc::no_such_file_or_directory && error != std::errc::not_a_directory) {
    fail(ErrorKind::resource, "[checkpoint] cannot list ", folder.string(), ": ", error.message());
  }
  std::sort(paths.begin(), paths.end());
  return paths;
}

// (step, path) of the complete checkpoints, oldest first.
std::vector<std::pair<int64_t, fs::path>> list(const fs::path& folder) {
  std::error_code error;
  std::vector<std::pair<int64_t, fs::path>> checkpoints;
  for (const fs::path& path : entries(folder)) {
    const int64_t step = checkpoint_step(path.string());
    if (step >= 0 && fs::is_directory(path, error)) checkpoints.emplace_back(step, path);
  }
  std::sort(checkpoints.begin(), checkpoints.end());
  return checkpoints;
}

std::string checksum_text(const files::InputFile& file) {
  char text[17];
  std::snprintf(text, sizeof text, "%016llx", static_cast<unsigned long long>(files::checksum(file)));
  return text;
}

// Whether a checkpoint is loaded from the file, if it is there.
bool is_loaded(const std::string& name) {
  return name.ends_with(".safetensors") || name == "config.json" || name == kStateFile ||
         name == "model.safetensors.index.json";
}

// What is wrong with the files of a checkpoint; empty if nothing is.
std::string find_damage(const fs::path& folder) {
  try {
    const std::string state = (folder / kStateFile).string();
    parse_trainer_state(files::read_text(state, "checkpoint"), state);
    const std::string path = (folder / kManifestFile).string();
    const nlohmann::json json = files::parse_json(files::read_text(path, "checkpoint"), "checkpoint", path);
    const files::Fields in(json, "checkpoint", path);
    in.refuse_others({"files"});
    in.object("files");
    const nlohmann::json& listed = json.at("files");
    for (const char* name : {"config.json", kStateFile, kOptimizerFile}) {
      if (!listed.contains(name)) return join_text(kManifestFile, " does not name ", name);
    }
    for (const fs::path& entry : entries(folder)) {
      const std::string name = entry.filename().string();
      if (is_loaded(name) && !listed.contains(name)) return join_text(kManifestFile, " does not name ", name);
    }
    for (const auto& [name, value] : listed.items()) {
      const files::Fields known(value, "checkpoint", path, name);
      if (fs::path(name).filename() != name) return join_text(kManifestFile, " names ", name, ", which is no file");
      const files::InputFile file((folder / name).string(), "checkpoint");
      if (const int64_t bytes = known.whole("bytes"); bytes != file.num_bytes()) {
        return join_text(name, " has ", file.num_bytes(), " bytes, ", bytes, " were written");
      }
      if (const std::string was = known.text("checksum"), is = checksum_text(file); was != is) {
        return join_text(name, " has the checksum ", is, ", ", was, " was written");
      }
    }
    return "";
  } catch (const Error& error) {
    return error.what();
  }
}

}  // namespace

std::string make_manifest(const std::string& folder) {
  nlohmann::json listed = nlohmann::json::object();
  for (const fs::path& path : entries(folder)) {
    const files::InputFile file(path.string(), "checkpoint");
    listed[path.filename().string()] = {{"bytes", file.num_bytes()}, {"checksum", checksum_text(file)}};
  }
  return nlohmann::json{{"files", listed}}.dump(2) + "\n";
}

void require_whole(const std::string& folder) {
  std::error_code error;
  fs::path root(folder);
  if (!root.has_filename()) root = root.parent_path();  // of "step-00000100/"
  if (!fs::exists(root / kStateFile, error)) {
    fail_invalid("[checkpoint] ", folder, " must be a checkpoint folder with ", kStateFile, "; it is not");
  }
  const std::string damage = find_damage(root);
  if (damage.empty()) return;
  if (!fs::exists(root / kManifestFile, error)) {
    // Checkpoints of earlier versions had none: then the state says so.
    const std::string state = (root / kStateFile).string();
    parse_trainer_state(files::read_text(state, "checkpoint"), state);
  }
  const int64_t own_step = checkpoint_step(root.string());
  std::string whole;
  for (const auto& [step, path] : list(root.parent_path())) {
    if ((own_step < 0 || step < own_step) && find_damage(path).empty()) whole = path.string();
  }
  fail_invalid("[checkpoint] ", folder, " is broken: ", damage,
               whole.empty() ? "; no older checkpoint beside it is whole, begin the run anew"
                             : "; " + whole + " is whole: move the broken one away and resume from that");
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

void remove_all_but(const std::string& folder, int64_t keep) {
  const auto all = list(folder);
  for (size_t i = 0; all.size() - i > static_cast<size_t>(keep); ++i) fs::remove_all(all[i].second);
}

}  // namespace evenspan::train
