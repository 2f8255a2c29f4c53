#include "evenspan/train/corpus.h"

#include <filesystem>

#include "evenspan/core/error.h"
#include "evenspan/train/batches.h"

namespace evenspan::train {

int64_t find_invalid_utf8(const char* text, int64_t num_bytes) {
  const auto* s = reinterpret_cast<const unsigned char*>(text);
  int64_t i = 0;
  while (i < num_bytes) {
    const unsigned char lead = s[i];
    if (lead < 0x80) {
      ++i;
      continue;
    }
    // The ranges of the second byte exclude overlong forms, surrogates and code points above 10FFFF.
    int64_t extra = 0;
    unsigned char low = 0x80;
    unsigned char high = 0xbf;
    if (lead >= 0xc2 && lead <= 0xdf) {
      extra = 1;
    } else if (lead >= 0xe0 && lead <= 0xef) {
      extra = 2;
      if (lead == 0xe0) low = 0xa0;
      if (lead == 0xed) high = 0x9f;
    } else if (lead >= 0xf0 && lead <= 0xf4) {
      extra = 3;
      if (lead == 0xf0) low = 0x90;
      if (lead == 0xf4) high = 0x8f;
    } else {
      return i;
    }
    if (i + extra >= num_bytes || s[i + 1] < low || s[i + 1] > high) return i;
    for (int64_t j = 2; j <= extra; ++j) {
      if (s[i + j] < 0x80 || s[i + j] > 0xbf) return i;
    }
    i += extra + 1;
  }
  return -1;
}

std::shared_ptr<const Corpus> open_corpus(const DataConfig& config) {
  namespace fs = std::filesystem;
  const std::string& path = config.path;
  std::string format = config.format;
  if (format == "auto") {
    if (fs::is_directory(path)) {
      format = "text";
    } else if (path.ends_with(".jsonl")) {
      format = "jsonl";
    } else if (path.ends_with(".bin") || path.ends_with(".idx") || fs::exists(path + ".idx")) {
      format = "megatron";
    } else {
      fail_invalid("[data] data.path must be a folder, a .jsonl file or a .bin/.idx pair; ", path,
                   fs::exists(path) ? " is none of these, set data.format" : " does not exist");
    }
  }
  if (format != "text") {
    if (!config.suffixes.empty() || !config.exclude.empty() || config.skip_invalid) {
      fail_invalid(
          "[data] data.suffixes, data.exclude and data.skip_invalid are for folders of text files; data.path is ", path,
          ", of format ", format);
    }
    return format == "jsonl" ? open_jsonl(path) : open_megatron(path);
  }
  return open_text_folder(path, {config.suffixes, config.exclude, config.skip_invalid});
}

}  // namespace evenspan::train
