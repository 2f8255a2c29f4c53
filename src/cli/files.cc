#include "cli/files.h"

#define ZLIB_CONST  // so that input is const
#include <unistd.h>
#include <zlib.h>

#include <cerrno>
#include <charconv>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <iostream>
#include <memory>
#include <string_view>

#include "evenspan/core/error.h"
#include "evenspan/core/quoted.h"

namespace evenspan::cli {
namespace {

namespace fs = std::filesystem;

struct CloseFile {
  void operator()(FILE* file) const { std::fclose(file); }
};

std::string read_raw(const std::string& path) {
  const std::unique_ptr<FILE, CloseFile> owned(path == "-" ? nullptr : std::fopen(path.c_str(), "rb"));
  FILE* const file = path == "-" ? stdin : owned.get();
  const auto refuse = [&path] {
    fail(ErrorKind::resource, "[input] ", quoted(path, 200), " cannot be read: ", std::strerror(errno));
  };
  if (file == nullptr) refuse();
  std::string contents;
  char buffer[1 << 16];
  for (size_t n; (n = std::fread(buffer, 1, sizeof(buffer), file)) > 0;) contents.append(buffer, n);
  if (std::ferror(file)) refuse();
  return contents;
}

// Gzip files may be several members one after another.
std::string unpack(const std::string& packed, const std::string& path) {
  std::string contents;
  z_stream stream{};
  constexpr int kGzipOnly = 15 + 16;
  if (inflateInit2(&stream, kGzipOnly) != Z_OK) throw std::bad_alloc();
  const auto end = [](z_stream* s) { inflateEnd(s); };
  const std::unique_ptr<z_stream, decltype(end)> ended(&stream, end);
  stream.next_in = reinterpret_cast<const Bytef*>(packed.data());
  size_t left = packed.size();
  int state = Z_OK;
  char buffer[1 << 16];
  while (left > 0 || state == Z_OK) {
    if (state == Z_STREAM_END) inflateReset(&stream);
    const auto given = static_cast<uInt>(std::min<size_t>(left, 1 << 30));
    stream.avail_in = given;
    stream.next_out = reinterpret_cast<Bytef*>(buffer);
    stream.avail_out = sizeof(buffer);
    state = inflate(&stream, Z_NO_FLUSH);
    left -= given - stream.avail_in;
    contents.append(buffer, sizeof(buffer) - stream.avail_out);
    if (state == Z_BUF_ERROR) {
      fail_invalid("[input] the gzip file ", quoted(path, 200), " ends in the middle after ", packed.size(),
                   " bytes; get it again");
    }
    if (state != Z_OK && state != Z_STREAM_END) {
      fail_invalid("[input] the gzip file ", quoted(path, 200), " is damaged at byte ", packed.size() - left, ": ",
                   stream.msg != nullptr ? stream.msg : "no gzip data", "; get it again");
    }
  }
  return contents;
}

std::string_view trimmed(std::string_view line) {
  constexpr std::string_view kSpaces = " \t\r";
  const size_t first = line.find_first_not_of(kSpaces);
  return first == line.npos ? std::string_view() : line.substr(first, line.find_last_not_of(kSpaces) - first + 1);
}

[[noreturn]] void refuse_output(const std::string& path, const std::string& reason) {
  fail(ErrorKind::resource, "[output] ", quoted(path, 200), " cannot be written: ", reason);
}

void write_file(const fs::path& file, const std::string& text, const std::string& path) {
  const std::unique_ptr<FILE, CloseFile> out(std::fopen(file.c_str(), "wb"));
  if (out == nullptr) refuse_output(path, std::strerror(errno));
  const bool written = std::fwrite(text.data(), 1, text.size(), out.get()) == text.size();
  if (!written || std::fflush(out.get()) != 0) refuse_output(path, std::strerror(errno));
}

constexpr int kMostLinks = 40;  // more are a circle

// A file under a name of its own until it is whole.
class PendingFile {
 public:
  PendingFile(const std::string& path, const std::string& text) : path_(path), target_(path) {
    std::error_code error;
    for (int links = 0; links < kMostLinks && fs::is_symlink(target_, error); ++links) {
      target_ = target_.parent_path() / fs::read_symlink(target_, error);  // an absolute link replaces all before it
    }
    if (fs::is_directory(target_, error)) refuse_output(path, "it is a folder");
    direct_ = fs::exists(target_, error) && !fs::is_regular_file(target_, error);
    if (direct_) {
      text_ = text;
      return;
    }
    pending_ = target_;
    pending_ += ".part" + std::to_string(getpid());
    try {
      write_file(pending_, text, path);
    } catch (...) {
      fs::remove(pending_, error);
      throw;
    }
  }
  PendingFile(const PendingFile&) = delete;
  PendingFile& operator=(const PendingFile&) = delete;
  ~PendingFile() {
    std::error_code error;
    if (!pending_.empty()) fs::remove(pending_, error);
  }

  void finish() {
    if (direct_) return write_file(target_, text_, path_);
    std::error_code error;
    fs::rename(pending_, target_, error);
    if (error) refuse_output(path_, error.message());
    pending_.clear();
  }

 private:
  std::string path_;
  fs::path target_, pending_;
  bool direct_ = false;
  std::string text_;  // of direct files
};

}  // namespace

std::string read_input(const std::string& path) {
  std::string contents = read_raw(path);
  if (contents.starts_with("\x1f\x8b")) return unpack(contents, path);
  if (path.ends_with(".gz")) {
    fail_invalid("[input] ", quoted(path, 200), " is not gzip although it is named so; rename it if it is plain text");
  }
  return contents;
}

std::vector<int64_t> parse_lengths(const std::string& text, const std::string& name) {
  const std::string_view body = std::string_view(text).substr(0, text.find_last_not_of(" \t\r\n") + 1);
  std::vector<int64_t> lengths;
  int64_t line_number = 0;
  for (size_t begin = 0; begin < body.size();) {
    const size_t end = std::min(body.find('\n', begin), body.size());
    const std::string_view line = trimmed(body.substr(begin, end - begin));
    begin = end + 1;
    ++line_number;
    if (line.starts_with('#')) continue;
    int64_t length = 0;
    const auto [at, error] = std::from_chars(line.data(), line.data() + line.size(), length);
    if (error != std::errc() || at != line.data() + line.size()) {
      fail_invalid("[lengths] ", name, ", line ", line_number, " holds ", quoted(line),
                   "; a line holds the length of one document, a whole number of tokens");
    }
    lengths.push_back(length);
  }
  return lengths;
}

void write_outputs(const std::vector<std::pair<std::string, std::string>>& path_and_text) {
  std::vector<std::unique_ptr<PendingFile>> files;
  for (const auto& [path, text] : path_and_text) {
    if (path != "-") files.push_back(std::make_unique<PendingFile>(path, text));
  }
  for (const auto& file : files) file->finish();
  for (const auto& [path, text] : path_and_text) {
    if (path == "-") std::cout << text;
  }
}

}  // namespace evenspan::cli
