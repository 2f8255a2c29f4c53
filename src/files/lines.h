// The lines of a file, one after another.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "files/input_file.h"

namespace evenspan::files {

class Lines {
 public:
  explicit Lines(const InputFile& file) : file_(file) {}  // the file outlives it

  // The next line without its line feed, which stays until the next call; false at the end. Throws invalid_argument for
  // a line of more than kMostLineBytes.
  bool next(std::string_view* line);
  int64_t number() const { return number_; }  // of the last line, from 1
  int64_t offset() const { return offset_; }  // of its first byte in the file
  std::string where() const;                  // "PATH:NUMBER"

  static constexpr int64_t kMostLineBytes = int64_t{1} << 28;

 private:
  const InputFile& file_;
  std::string buffer_;
  size_t begin_ = 0;          // of the rest of the buffer
  int64_t buffer_begin_ = 0;  // where in the file the buffer begins
  int64_t number_ = 0;
  int64_t offset_ = 0;
};

}  // namespace evenspan::files
