// Corpora of text under the built-in byte tokenizer: folders and JSONL.
#include <nlohmann/json.hpp>

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <fstream>

#include "evenspan/core/error.h"
#include "evenspan/nn/safetensors.h"
#include "evenspan/train/corpus.h"

namespace evenspan::train {
namespace {

namespace fs = std::filesystem;

// Bytes and then the end of the document.
void to_tokens(const std::string& text, Span span, int64_t* tokens) {
  for (int64_t i = span.begin; i < span.end; ++i) {
    const auto at = static_cast<size_t>(i);
    *tokens++ = at < text.size() ? static_cast<unsigned char>(text[at]) : kEndOfDocument;
  }
}

class TextFolder : public Corpus {
 public:
  TextFolder(const std::string& folder, const TextFolderOptions& options) {
    for (const fs::path& path : list(folder, options)) {
      const std::string text = nn::read_file(path.string());
      if (text.empty()) {
        ++dropped_.empty;
        continue;
      }
      const int64_t bad = find_invalid_utf8(text.data(), static_cast<int64_t>(text.size()));
      if (bad >= 0 && !options.skip_invalid) {
        fail_invalid("[data] documents must be UTF-8, ", path.string(), " is not at byte ", bad,
                     "; convert or exclude it, or set data.skip_invalid = true");
      }
      if (bad >= 0) {
        ++dropped_.invalid;
        continue;
      }
      files_.push_back({path.string(), static_cast<int64_t>(text.size())});
    }
    if (files_.empty()) {
      fail_invalid("[data] ", folder, " must hold a text file that is not empty; ", dropped_.empty, " are empty and ",
                   dropped_.invalid, " are not UTF-8, look at data.suffixes and data.exclude");
    }
  }

  int64_t num_documents() const override { return static_cast<int64_t>(files_.size()); }
  int64_t length(int64_t document) const override { return file(document).num_bytes + 1; }
  std::string name(int64_t document) const override { return file(document).path; }
  int64_t vocabulary() const override { return kByteVocabulary; }
  void read(int64_t document, Span span, int64_t* tokens) const override {
    const File& f = file(document);
    const int64_t size = static_cast<int64_t>(fs::file_size(f.path));
    if (size != f.num_bytes) {
      fail(ErrorKind::resource, "[data] ", f.path, " had ", f.num_bytes, " bytes when the run began and has ", size,
           " now; data must not change while a run reads it");
    }
    std::string text(static_cast<size_t>(std::min(span.end, f.num_bytes) - span.begin), '\0');
    std::ifstream in(f.path, std::ios::binary);
    in.seekg(span.begin);
    if (!in.read(text.data(), static_cast<std::streamsize>(text.size()))) {
      fail(ErrorKind::resource, "[data] cannot read ", f.path, " any more");
    }
    to_tokens(text, Span{0, span.size()}, tokens);
  }

 private:
  struct File {
    std::string path;
    int64_t num_bytes = 0;
  };

  static std::vector<fs::path> list(const std::string& folder, const TextFolderOptions& options) {
    if (!fs::is_directory(folder)) fail_invalid("[data] data.path must be a folder, ", folder, " is not");
    const auto excluded = [&](const fs::path& path) {
      return std::find(options.exclude.begin(), options.exclude.end(), path.filename().string()) !=
             options.exclude.end();
    };
    const auto wanted = [&](const fs::path& path) {
      const std::string name = path.filename().string();
      return options.suffixes.empty() || std::any_of(options.suffixes.begin(), options.suffixes.end(),
                                                     [&](const std::string& s) { return name.ends_with(s); });
    };
    std::vector<fs::path> paths;
    try {
      for (fs::recursive_directory_iterator it(folder), end; it != end; ++it) {
        if (excluded(it->path())) {
          if (it->is_directory()) it.disable_recursion_pending();
        } else if (it->is_regular_file() && wanted(it->path())) {
          paths.push_back(it->path());
        }
      }
    } catch (const fs::filesystem_error& e) {
      fail(ErrorKind::resource, "[data] cannot list ", folder, ": ", e.what());
    }
    // By their bytes, not by path components or locale.
    std::sort(paths.begin(), paths.end(), [](const auto& a, const auto& b) { return a.native() < b.native(); });
    return paths;
  }

  const File& file(int64_t document) const { return files_[static_cast<size_t>(document)]; }

  std::vector<File> files_;
};

class JsonLines : public Corpus {
 public:
  explicit JsonLines(const std::string& path) : path_(path) {
    std::ifstream in(path, std::ios::binary);
    if (!in) fail(ErrorKind::resource, "[data] cannot open ", path);
    std::string line;
    int64_t offset = 0;
    for (int64_t number = 1; std::getline(in, line); ++number) {
      const int64_t start = offset;
      offset += static_cast<int64_t>(line.size()) + 1;
      if (line.find_first_not_of(" \t\r") == std::string::npos) continue;
      const std::string text = text_of(line, number);
      if (text.empty()) {
        ++dropped_.empty;
        continue;
      }
      lines_.push_back({number, start, static_cast<int64_t>(text.size())});
    }
    if (in.bad()) fail(ErrorKind::resource, "[data] cannot read ", path);
    if (lines_.empty())
      fail_invalid("[data] ", path, " must hold a document that is not empty; ", dropped_.empty, " are empty");
  }

  int64_t num_documents() const override { return static_cast<int64_t>(lines_.size()); }
  int64_t length(int64_t document) const override { return line(document).num_bytes + 1; }
  std::string name(int64_t document) const override { return join_text(path_, ":", line(document).number); }
  int64_t vocabulary() const override { return kByteVocabulary; }
  void read(int64_t document, Span span, int64_t* tokens) const override {
    const Line& l = line(document);
    std::ifstream in(path_, std::ios::binary);
    in.seekg(l.offset);
    std::string json;
    if (!std::getline(in, json)) fail(ErrorKind::resource, "[data] cannot read ", name(document), " any more");
    const std::string text = text_of(json, l.number);
    if (static_cast<int64_t>(text.size()) != l.num_bytes) {
      fail(ErrorKind::resource, "[data] ", name(document),
           " changed since the run began; data must not change while a run reads it");
    }
    to_tokens(text, span, tokens);
  }

 private:
  struct Line {
    int64_t number = 0;  // from 1
    int64_t offset = 0;  // bytes
    int64_t num_bytes = 0;
  };

  std::string text_of(const std::string& line, int64_t number) const {
    const auto json = nlohmann::json::parse(line, nullptr, /*allow_exceptions=*/false);
    if (!json.is_object()) {
      const int64_t bad = find_invalid_utf8(line.data(), static_cast<int64_t>(line.size()));
      fail_invalid("[data] ", path_, ":", number, " must be one JSON object, ",
                   bad >= 0 ? join_text("it is not UTF-8 at byte ", bad) : std::string("it is not"));
    }
    const auto found = json.find("text");
    if (found == json.end() || !found->is_string()) {
      fail_invalid("[data] ", path_, ":", number, " must have a field text that holds a text, it has ",
                   found == json.end() ? std::string("none") : std::string(found->type_name()));
    }
    return found->get<std::string>();
  }

  const Line& line(int64_t document) const { return lines_[static_cast<size_t>(document)]; }

  std::string path_;
  std::vector<Line> lines_;
};

}  // namespace

std::unique_ptr<Corpus> open_text_folder(const std::string& folder, const TextFolderOptions& options) {
  return std::make_unique<TextFolder>(folder, options);
}

std::unique_ptr<Corpus> open_jsonl(const std::string& path) { return std::make_unique<JsonLines>(path); }

}  // namespace evenspan::train
