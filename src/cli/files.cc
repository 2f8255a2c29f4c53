#include "cli/files.h"

#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <iostream>
#include <memory>

#include "evenspan/core/error.h"
#include "evenspan/core/quoted.h"

namespace evenspan::cli {
namespace {

namespace fs = std::filesystem;

struct CloseFile {
  void operator()(FILE* file) const { std::fclose(file); }
};

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
