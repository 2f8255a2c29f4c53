// What a command reads: files, or standard input for "-", unpacked when they are gzip (told by the first two bytes), in
// memory that does not depend on what they unpack to. Errors are of kind resource for the machine and invalid_argument
// for contents.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace evenspan::cli {

// Unpacked bytes, one after another.
class Input {
 public:
  // Throws resource for what cannot be opened.
  explicit Input(const std::string& path);
  ~Input();
  const std::string& path() const { return path_; }
  // Up to `most` bytes; 0 at the end. Throws for damaged gzip and for plain contents under a name that ends with .gz.
  size_t read(char* to, size_t most);

 private:
  struct Source;
  std::string path_;
  std::unique_ptr<Source> source_;
};

// Unpacked lines, one after another.
class InputLines {
 public:
  explicit InputLines(const std::string& path) : input_(path) {}
  // The next line without its line feed, which stays until the next call; false at the end. Throws invalid_argument for
  // a line of more than kMostLineBytes, and after more than kMostEmptyLines that are blank or begin with '#'.
  bool next(std::string_view* line);

  static constexpr size_t kMostLineBytes = size_t{1} << 26;
  static constexpr int64_t kMostEmptyLines = int64_t{1} << 22;

 private:
  Input input_;
  std::string buffer_;
  size_t begin_ = 0;  // in the buffer: of what was not given out yet
  int64_t number_ = 0;
  int64_t num_empty_ = 0;
  bool at_end_ = false;
};

// All of a file. Throws invalid_argument for more than files::kMostTextBytes.
std::string read_input(const std::string& path);

constexpr int64_t kMostDocuments = int64_t{1} << 20;

// Lengths of documents, one a line. Blank lines at the end and lines that begin with '#' are passed over; `name` says
// in errors where the text is from. Throws invalid_argument for a line that is no whole number and for more than
// kMostDocuments. Lengths that no document can have (0, negative) are left to the planner, which names the document.
std::vector<int64_t> read_lengths(const std::string& path, const std::string& name);

}  // namespace evenspan::cli
