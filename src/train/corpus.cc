#include "evenspan/train/corpus.h"

#include <filesystem>

#include "evenspan/core/error.h"

namespace evenspan::train {

std::string data_format(const DataConfig& config) {
  namespace fs = std::filesystem;
  const std::string& path = config.path;
  std::error_code error;
  if (config.format != "auto") return config.format;
  if (fs::is_directory(path, error)) return "text";
  if (path.ends_with(".jsonl")) return "jsonl";
  if (path.ends_with(".bin") || path.ends_with(".idx") || fs::exists(path + ".idx", error)) return "megatron";
  fail_invalid("[data] data.path must be a folder, a .jsonl file or a .bin/.idx pair; ", path,
               fs::exists(path, error)
                   ? " is none of these; put a file of text into a folder and give that, or set data.format"
                   : " does not exist");
}

std::shared_ptr<const Corpus> open_corpus(const DataConfig& config, Progress* progress) {
  const std::string& path = config.path;
  const std::string format = data_format(config);
  if (format != "text") {
    if (!config.suffixes.empty() || !config.exclude.empty() || config.skip_invalid) {
      fail_invalid(
          "[data] data.suffixes, data.exclude and data.skip_invalid are for folders of text files; data.path is ", path,
          ", of format ", format);
    }
    return format == "jsonl" ? open_jsonl(path, progress) : open_megatron(path);
  }
  return open_text_folder(path, {config.suffixes, config.exclude, config.skip_invalid}, progress);
}

}  // namespace evenspan::train
