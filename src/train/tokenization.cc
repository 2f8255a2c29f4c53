#include "evenspan/train/tokenization.h"

#include <algorithm>
#include <cctype>
#include <filesystem>

#include "evenspan/core/error.h"
#include "evenspan/nn/model_config.h"
#include "evenspan/train/corpus.h"
#include "files/input_file.h"

namespace evenspan::train {
namespace {

namespace fs = std::filesystem;

// Of these a folder with a tokenizer has at least one.
constexpr const char* kVocabularies[] = {"tokenizer.json", "tokenizer.model", "spiece.model",  "tekken.json",
                                         "vocab.json",     "vocab.txt",       "tiktoken.model"};
constexpr const char* kTokenizerFiles[] = {"tokenizer_config.json", "special_tokens_map.json",
                                           "added_tokens.json",     "merges.txt",
                                           "chat_template.jinja",   "chat_template.json"};
constexpr const char* kGeneration = "generation_config.json";

fs::path folder_of(const std::string& path) {
  std::error_code error;
  return fs::is_directory(path, error) ? fs::path(path) : fs::path(path).parent_path();
}

// The name of the file that makes a folder one with a tokenizer; empty if there is none.
std::string vocabulary_in(const fs::path& folder) {
  std::error_code error;
  for (const char* name : kVocabularies) {
    if (fs::is_regular_file(folder / name, error)) return name;
  }
  return "";
}

// The folder of the tokenizer that the configuration names or that the model brings; empty if there is none.
fs::path tokenizer_folder(const Config& config) {
  if (config.data.tokenizer == kBytes) return {};
  if (!config.data.tokenizer.empty()) return config.data.tokenizer;
  if (!config.model.weights.empty()) {
    return vocabulary_in(config.model.weights).empty() ? fs::path() : fs::path(config.model.weights);
  }
  const fs::path beside = folder_of(config.model.config);
  return vocabulary_in(beside).empty() ? fs::path() : beside;
}

void add_list(const char* option, const std::vector<std::string>& values, std::vector<std::string>* words) {
  if (values.empty()) return;
  std::string joined;
  for (const std::string& value : values) joined += (joined.empty() ? "" : ",") + value;
  words->insert(words->end(), {option, joined});
}

std::string quoted_words(const std::vector<std::string>& words) {
  std::string text;
  for (const std::string& word : words) {
    const bool plain = std::all_of(word.begin(), word.end(), [](unsigned char c) {
      return std::isalnum(c) != 0 || std::string_view("-_./,=").find(static_cast<char>(c)) != std::string_view::npos;
    });
    std::string shown = word;
    for (size_t at = 0; !plain && (at = shown.find('\'', at)) != std::string::npos; at += 4) {
      shown.replace(at, 1, "'\\''");
    }
    text += " " + (plain && !word.empty() ? word : "'" + shown + "'");
  }
  return text;
}

}  // namespace

std::optional<Tokenization> tokenization(const Config& config) {
  const std::string format = data_format(config.data);
  const std::string& asked = config.data.tokenizer;
  if (format == "megatron") {
    if (asked.empty()) return std::nullopt;
    fail_invalid("[train] data.tokenizer is \"", asked, "\", and ", config.data.path,
                 " holds tokens already; leave data.tokenizer out");
  }
  if (asked == kBytes) return std::nullopt;
  const fs::path folder = tokenizer_folder(config);
  if (folder.empty()) {
    if (config.model.weights.empty()) return std::nullopt;
    fail_invalid("[train] ", config.data.path, " is text, and ", config.model.weights,
                 " has no tokenizer (tokenizer.json or the like), so it is unclear what its tokens are; set "
                 "data.tokenizer to a folder with a tokenizer, or to \"bytes\" for a model of bytes");
  }
  if (vocabulary_in(folder).empty()) {
    fail_invalid("[train] data.tokenizer must be \"bytes\" or a folder with a tokenizer (tokenizer.json or the like); ",
                 folder.string(), " has none");
  }
  if (config.run.folder.empty()) {
    fail_invalid("[train] ", folder.string(), " has a tokenizer of its own (", vocabulary_in(folder),
                 "), whose tokens of the text are kept in run.folder, and that is empty; name a folder, or set "
                 "data.tokenizer = \"bytes\" to train on bytes");
  }
  Tokenization t;
  t.tokenizer = folder.string();
  t.prefix = (fs::path(config.run.folder) / "tokens").string();
  const int64_t vocabulary = nn::load_model_config(config.model.config).vocab_size;
  t.words = {"tokenize", config.data.path, "--tokenizer",         t.tokenizer, "--out",
             t.prefix,   "--vocabulary",   join_text(vocabulary), "--reuse",   "true"};
  if (format == "jsonl") t.words.insert(t.words.end(), {"--format", "jsonl"});
  add_list("--suffixes", config.data.suffixes, &t.words);
  add_list("--exclude", config.data.exclude, &t.words);
  if (config.data.skip_invalid) t.words.insert(t.words.end(), {"--skip-invalid", "true"});
  return t;
}

DataConfig with_tokens(const Config& config) {
  const std::optional<Tokenization> t = tokenization(config);
  if (!t) return config.data;
  std::error_code error;
  if (!fs::is_regular_file(t->prefix + ".idx", error)) {
    fail_invalid("[train] ", t->tokenizer, " has a tokenizer of its own (", vocabulary_in(t->tokenizer),
                 "), and the text has not been through it; run: python -m evenspan", quoted_words(t->words),
                 " (or set data.tokenizer = \"bytes\" to train on bytes)");
  }
  DataConfig data = config.data;
  data.path = t->prefix;
  data.format = "megatron";
  data.suffixes.clear();
  data.exclude.clear();
  data.skip_invalid = false;
  return data;
}

std::vector<std::pair<std::string, std::string>> read_companions(const Config& config) {
  std::vector<std::pair<std::string, std::string>> out;
  if (config.data.tokenizer == kBytes) return out;
  const auto take = [&](const fs::path& file) {
    std::error_code error;
    if (fs::is_regular_file(file, error))
      out.emplace_back(file.filename().string(), files::read_text(file.string(), "model"));
  };
  const fs::path tokenizer = tokenizer_folder(config);
  if (!tokenizer.empty()) {
    for (const char* name : kVocabularies) take(tokenizer / name);
    for (const char* name : kTokenizerFiles) take(tokenizer / name);
  }
  take(folder_of(config.model.weights.empty() ? config.model.config : config.model.weights) / kGeneration);
  return out;
}

}  // namespace evenspan::train
