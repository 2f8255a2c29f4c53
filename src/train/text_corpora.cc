// Corpora of text under the built-in byte tokenizer: folders and JSONL.
#include <algorithm>
#include <filesystem>
#include <string_view>

#include "evenspan/core/error.h"
#include "evenspan/train/corpus.h"
#include "files/input_file.h"
#include "files/json.h"
#include "files/json_fields.h"
#include "files/lines.h"
#include "files/utf8.h"

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
  TextFolder(const std::string& folder, const TextFolderOptions& options, Progress* progress) {
    const std::vector<fs::path> paths = list(folder, options);
    double done = 0;
    for (const fs::path& path : paths) {
      if (progress != nullptr) progress->at(done++, static_cast<double>(paths.size()));
      if (path.extension() == ".jsonl" && options.suffixes.empty()) {
        fail_invalid(
            "[data] a folder holds text files, and ", path.string(),
            " is JSONL, whose braces and keys would be trained on; give that file as data.path, or exclude it, "
            "or name it in data.suffixes to have it as text");
      }
      const files::InputFile file(path.string(), "data");
      if (file.num_bytes() == 0) {
        ++dropped_.empty;
        continue;
      }
      const int64_t bad = files::find_invalid_utf8(file);
      if (bad >= 0 && !options.skip_invalid) {
        fail_invalid("[data] documents must be UTF-8, ", path.string(), " is not at byte ", bad,
                     "; convert or exclude it, or set data.skip_invalid = true");
      }
      if (bad >= 0) {
        ++dropped_.invalid;
        continue;
      }
      files_.push_back({path.string(), file.stamp()});
    }
    if (files_.empty()) {
      fail_invalid("[data] ", folder, " must hold a text file that is not empty; ", dropped_.empty, " are empty and ",
                   dropped_.invalid, " are not UTF-8, look at data.suffixes and data.exclude");
    }
  }

  int64_t num_documents() const override { return static_cast<int64_t>(files_.size()); }
  int64_t length(int64_t document) const override { return file(document).stamp.num_bytes + 1; }
  std::string name(int64_t document) const override { return file(document).path; }
  int64_t vocabulary() const override { return kByteVocabulary; }
  void read(int64_t document, Span span, int64_t* tokens) const override {
    const File& f = file(document);
    const files::InputFile open(f.path, "data", f.stamp);
    const int64_t end = std::min(span.end, open.num_bytes());
    to_tokens(open.read(span.begin, std::max<int64_t>(0, end - span.begin)), Span{0, span.size()}, tokens);
  }

 private:
  struct File {
    std::string path;
    files::InputFile::Stamp stamp;
  };

  static std::vector<fs::path> list(const std::string& folder, const TextFolderOptions& options) {
    std::error_code error;
    if (!fs::is_directory(folder, error)) {
      fail_invalid("[data] data.path must be a folder for data.format text, ", folder,
                   fs::exists(folder, error) ? " is a file; put it into a folder, and give that" : " does not exist");
    }
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
  JsonLines(const std::string& path, Progress* progress) : file_(path, "data") {
    files::Lines lines(file_);
    for (std::string_view line; lines.next(&line);) {
      if (progress != nullptr) {
        progress->at(static_cast<double>(lines.offset()), static_cast<double>(file_.num_bytes()));
      }
      if (line.find_first_not_of(" \t\r") == line.npos) continue;
      const std::string text = text_of(line, lines.number());
      if (text.empty()) {
        ++dropped_.empty;
      } else {
        lines_.push_back(
            {lines.number(), lines.offset(), static_cast<int64_t>(line.size()), static_cast<int64_t>(text.size())});
      }
    }
    if (lines_.empty())
      fail_invalid("[data] ", path, " must hold a document that is not empty; ", dropped_.empty, " are empty");
  }

  int64_t num_documents() const override { return static_cast<int64_t>(lines_.size()); }
  int64_t length(int64_t document) const override { return line(document).num_bytes + 1; }
  std::string name(int64_t document) const override { return join_text(file_.path(), ":", line(document).number); }
  int64_t vocabulary() const override { return kByteVocabulary; }
  void read(int64_t document, Span span, int64_t* tokens) const override {
    const Line& l = line(document);
    to_tokens(text_of(file_.read(l.offset, l.line_bytes), l.number), span, tokens);
  }

 private:
  struct Line {
    int64_t number = 0;      // from 1
    int64_t offset = 0;      // bytes
    int64_t line_bytes = 0;  // of the JSON
    int64_t num_bytes = 0;   // of the text in it
  };

  std::string text_of(std::string_view line, int64_t number) const {
    const std::string where = join_text(file_.path(), ":", number);
    const auto json = files::parse_json(line, "data", where);
    return files::Fields(json, "data", where).text("text");
  }

  const Line& line(int64_t document) const { return lines_[static_cast<size_t>(document)]; }

  files::InputFile file_;
  std::vector<Line> lines_;
};

}  // namespace

std::unique_ptr<Corpus> open_text_folder(const std::string& folder, const TextFolderOptions& options,
                                         Progress* progress) {
  return std::make_unique<TextFolder>(folder, options, progress);
}

std::unique_ptr<Corpus> open_jsonl(const std::string& path, Progress* progress) {
  return std::make_unique<JsonLines>(path, progress);
}

}  // namespace evenspan::train
