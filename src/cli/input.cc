#include "cli/input.h"

#define ZLIB_CONST  // so that input is const
#include <zlib.h>

#include <cerrno>
#include <charconv>
#include <cstdio>
#include <cstring>
#include <new>

#include "evenspan/core/error.h"
#include "evenspan/core/quoted.h"
#include "files/input_file.h"

namespace evenspan::cli {
namespace {

constexpr size_t kChunkBytes = size_t{1} << 16;

std::string_view trimmed(std::string_view line) {
  constexpr std::string_view kSpaces = " \t\r";
  const size_t first = line.find_first_not_of(kSpaces);
  return first == line.npos ? std::string_view() : line.substr(first, line.find_last_not_of(kSpaces) - first + 1);
}

}  // namespace

// The file, and what of it waits to be unpacked.
struct Input::Source {
  explicit Source(const std::string& file_path)
      : path(file_path), file(file_path == "-" ? stdin : std::fopen(file_path.c_str(), "rb")) {
    if (file == nullptr) refuse();
  }
  ~Source() {
    if (packed) inflateEnd(&stream);
    if (file != stdin) std::fclose(file);
  }
  Source(const Source&) = delete;
  Source& operator=(const Source&) = delete;

  [[noreturn]] void refuse() const {
    fail(ErrorKind::resource, "[input] ", quoted(path, 200), " cannot be read: ", std::strerror(errno),
         "; name a file that is there and may be read, or - for standard input");
  }

  void fill() {
    const size_t n = std::fread(chunk, 1, sizeof chunk, file);
    if (std::ferror(file)) refuse();
    num_read += static_cast<int64_t>(n);
    stream.next_in = reinterpret_cast<const Bytef*>(chunk);
    stream.avail_in = static_cast<uInt>(n);
    at_end = n < sizeof chunk;
  }

  void begin() {
    begun = true;
    fill();
    packed = std::string_view(chunk, stream.avail_in).starts_with("\x1f\x8b");
    if (!packed && path.ends_with(".gz")) {
      fail_invalid("[input] ", quoted(path, 200),
                   " is not gzip although it is named so; rename it if it is plain text");
    }
    constexpr int kGzipOnly = 15 + 16;
    if (packed && inflateInit2(&stream, kGzipOnly) != Z_OK) throw std::bad_alloc();
  }

  size_t plain(char* to, size_t most) {
    if (stream.avail_in == 0 && !at_end) fill();
    const size_t n = std::min<size_t>(most, stream.avail_in);
    std::memcpy(to, stream.next_in, n);
    stream.next_in += n;
    stream.avail_in -= static_cast<uInt>(n);
    return n;
  }

  // Gzip files may be several members one after another.
  size_t unpacked(char* to, size_t most) {
    stream.next_out = reinterpret_cast<Bytef*>(to);
    stream.avail_out = static_cast<uInt>(most);
    while (stream.avail_out == most) {
      if (stream.avail_in == 0 && !at_end) fill();
      if (stream.avail_in == 0 && state == Z_STREAM_END) return 0;
      if (state == Z_STREAM_END) inflateReset(&stream);
      state = inflate(&stream, Z_NO_FLUSH);
      if (state == Z_BUF_ERROR && at_end) {
        fail_invalid("[input] the gzip file ", quoted(path, 200), " ends in the middle after ", num_read,
                     " bytes; get it again");
      }
      if (state != Z_OK && state != Z_STREAM_END && state != Z_BUF_ERROR) {
        fail_invalid("[input] the gzip file ", quoted(path, 200), " is damaged at byte ", num_read - stream.avail_in,
                     ": ", stream.msg != nullptr ? stream.msg : "no gzip data", "; get it again");
      }
    }
    return most - stream.avail_out;
  }

  const std::string& path;
  FILE* file;
  char chunk[kChunkBytes];
  z_stream stream{};  // its input is also that of plain contents
  int state = Z_OK;
  int64_t num_read = 0;  // bytes of the file
  bool begun = false, packed = false, at_end = false;
};

Input::Input(const std::string& path) : path_(path), source_(std::make_unique<Source>(path_)) {}

Input::~Input() = default;

size_t Input::read(char* to, size_t most) {
  if (!source_->begun) source_->begin();
  return source_->packed ? source_->unpacked(to, most) : source_->plain(to, most);
}

bool InputLines::next(std::string_view* line) {
  size_t searched = begin_;
  for (;;) {
    const size_t end = buffer_.find('\n', searched);
    if (end != buffer_.npos || (at_end_ && begin_ < buffer_.size())) {
      *line = std::string_view(buffer_).substr(begin_, std::min(end, buffer_.size()) - begin_);
      begin_ = std::min(end, buffer_.size() - 1) + 1;
      ++number_;
      const std::string_view contents = trimmed(*line);
      num_empty_ = contents.empty() || contents.starts_with('#') ? num_empty_ + 1 : 0;
      if (num_empty_ > kMostEmptyLines) {
        fail_invalid("[input] ", quoted(input_.path(), 200), " has more than ", kMostEmptyLines,
                     " lines without contents before line ", number_, "; is it the right file?");
      }
      return true;
    }
    if (at_end_) return false;
    buffer_.erase(0, begin_);
    begin_ = 0;
    searched = buffer_.size();
    if (searched > kMostLineBytes) {
      fail_invalid("[input] line ", number_ + 1, " of ", quoted(input_.path(), 200), " has more than ", kMostLineBytes,
                   " bytes; is it the right file?");
    }
    buffer_.resize(searched + kChunkBytes);
    const size_t n = input_.read(buffer_.data() + searched, kChunkBytes);
    buffer_.resize(searched + n);
    at_end_ = n == 0;
  }
}

std::string read_input(const std::string& path) {
  Input input(path);
  std::string contents;
  char buffer[kChunkBytes];
  for (size_t n; (n = input.read(buffer, sizeof buffer)) > 0;) {
    contents.append(buffer, n);
    if (static_cast<int64_t>(contents.size()) > files::kMostTextBytes) {
      fail_invalid("[input] ", quoted(path, 200), " holds more than ", files::kMostTextBytes,
                   " bytes, which no file of its kind does; is it the right file?");
    }
  }
  return contents;
}

std::vector<int64_t> read_lengths(const std::string& path, const std::string& name) {
  InputLines lines(path);
  std::vector<int64_t> lengths;
  int64_t line_number = 0, first_blank = 0;
  const auto refuse = [&name](int64_t number, std::string_view line) {
    fail_invalid("[lengths] ", name, ", line ", number, " holds ", quoted(line),
                 "; a line holds the length of one document, a whole number of tokens");
  };
  for (std::string_view line; lines.next(&line);) {
    line = trimmed(line);
    ++line_number;
    if (line.starts_with('#')) continue;
    if (line.empty()) {
      if (first_blank == 0) first_blank = line_number;
      continue;
    }
    if (first_blank > 0) refuse(first_blank, "");
    int64_t length = 0;
    const auto [at, error] = std::from_chars(line.data(), line.data() + line.size(), length);
    if (error != std::errc() || at != line.data() + line.size()) refuse(line_number, line);
    if (static_cast<int64_t>(lengths.size()) == kMostDocuments) {
      fail_invalid("[lengths] ", name, " has more than ", kMostDocuments, " documents before line ", line_number,
                   "; plan smaller batches");
    }
    lengths.push_back(length);
  }
  return lengths;
}

}  // namespace evenspan::cli
