// Documents as tokens, wherever they are stored.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "evenspan/core/progress.h"
#include "evenspan/core/ranges.h"
#include "evenspan/train/config.h"

namespace evenspan::train {

// The built-in tokenizer: a token per byte, and one that ends every document.
constexpr int64_t kEndOfDocument = 256;
constexpr int64_t kByteVocabulary = 257;

// An immutable list of documents. Documents without tokens are not in it. All members may be called from any thread.
class Corpus {
 public:
  virtual ~Corpus() = default;
  virtual int64_t num_documents() const = 0;
  virtual int64_t length(int64_t document) const = 0;  // tokens, >= 1
  // Writes tokens [span.begin, span.end) of the document. Throws resource when its file can no longer be read or has
  // changed since the corpus was opened.
  virtual void read(int64_t document, Span span, int64_t* tokens) const = 0;
  // Where the document comes from, for messages: a path, a line, a number.
  virtual std::string name(int64_t document) const = 0;
  // Tokens are below this, or 0 if only reading them tells.
  virtual int64_t vocabulary() const = 0;

  struct Dropped {
    int64_t empty = 0;    // documents without tokens
    int64_t invalid = 0;  // documents that are not UTF-8, dropped by request
  };
  const Dropped& dropped() const { return dropped_; }

 protected:
  Dropped dropped_;
};

struct TextFolderOptions {
  std::vector<std::string> suffixes;  // ".py"; empty: every file
  std::vector<std::string> exclude;   // names of files and folders that are left out, wherever they stand
  bool skip_invalid = false;          // drop and count files that are not UTF-8; otherwise they are an error
};

// What is opened says how far it is to `progress`, where that is given.

// Every regular file below a folder, in the order of the paths, as bytes and the end of the document. Throws
// invalid_argument for a file that is not UTF-8, with the offset of its first bad byte, and when no file matches.
std::unique_ptr<Corpus> open_text_folder(const std::string& folder, const TextFolderOptions& options,
                                         Progress* progress = nullptr);

// One JSON object a line, the document is its text field `text`. Blank lines are passed over. Throws invalid_argument,
// with the line's number, for a line that is not such an object.
std::unique_ptr<Corpus> open_jsonl(const std::string& path, Progress* progress = nullptr);

// Megatron's indexed data, `prefix`.bin and `prefix`.idx; `path` may also name either file. Throws invalid_argument for
// truncated or inconsistent files and types that do not hold tokens.
std::unique_ptr<Corpus> open_megatron(const std::string& path);

// "text", "jsonl" or "megatron": data.format, or what data.path is. Throws invalid_argument where that is unclear.
std::string data_format(const DataConfig& config);

// Opens the corpus that the configuration names.
std::shared_ptr<const Corpus> open_corpus(const DataConfig& config, Progress* progress = nullptr);

}  // namespace evenspan::train
