#include "evenspan/core/output_file.h"

#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <iostream>
#include <memory>

#include "evenspan/core/error.h"
#include "evenspan/core/quoted.h"

namespace evenspan {
namespace {

namespace fs = std::filesystem;

struct CloseFile {
  void operator()(std::FILE* file) const { std::fclose(file); }
};

[[noreturn]] void refuse(const std::string& path, const std::string& reason, const std::string& remedy) {
  fail(ErrorKind::resource, "[output] ", quoted(path, 200), " cannot be written: ", reason, "; ", remedy);
}

void write_file(const fs::path& file, const std::string& text, const std::string& path) {
  constexpr const char* kRemedy = "make room, or name a file elsewhere";
  const std::unique_ptr<std::FILE, CloseFile> out(std::fopen(file.c_str(), "wb"));
  if (out == nullptr) refuse(path, std::strerror(errno), kRemedy);
  const bool written = std::fwrite(text.data(), 1, text.size(), out.get()) == text.size();
  if (!written || std::fflush(out.get()) != 0) refuse(path, std::strerror(errno), kRemedy);
}

constexpr int kMostLinks = 40;  // more are a circle

// Where a path leads, checked.
struct Target {
  fs::path file;
  bool direct = false;  // no regular file
};
Target target_of(const std::string& path) {
  fs::path file(path);
  std::error_code error;
  for (int links = 0; links < kMostLinks && fs::is_symlink(file, error); ++links) {
    file = file.parent_path() / fs::read_symlink(file, error);  // an absolute link replaces all before it
  }
  const fs::file_status status = fs::status(file, error);
  const fs::path folder = file.has_parent_path() ? file.parent_path() : fs::path(".");
  if (status.type() == fs::file_type::directory || !file.has_filename()) {
    refuse(path, "it is a folder", "name a file in it");
  }
  if (status.type() == fs::file_type::none) refuse(path, error.message(), "name another file");
  if (fs::exists(status) && status.type() != fs::file_type::regular) {
    if (access(file.c_str(), W_OK) != 0) refuse(path, std::strerror(errno), "name another file");
    return {file, true};
  }
  const bool is_folder = fs::is_directory(folder, error);
  if (!is_folder || access(folder.c_str(), W_OK | X_OK) != 0) {
    const int reason = is_folder ? errno : fs::exists(folder, error) ? ENOTDIR : ENOENT;
    refuse(
        path, std::strerror(reason),
        join_text(reason == ENOENT ? "make its folder first, " : "name a file in a folder that you may write to, not ",
                  quoted(folder.string(), 200)));
  }
  return {file, false};
}

// A file under a name of its own until it is whole.
class PendingFile {
 public:
  PendingFile(const std::string& path, const std::string& text) : path_(path), target_(target_of(path)) {
    if (target_.direct) {
      text_ = text;
      return;
    }
    // Not the file's name and more, which may be too long.
    pending_ = target_.file.parent_path() / join_text(".evenspan-", getpid(), "-", ++num_pending, ".part");
    try {
      write_file(pending_, text, path);
    } catch (...) {
      remove();
      throw;
    }
  }
  PendingFile(const PendingFile&) = delete;
  PendingFile& operator=(const PendingFile&) = delete;
  ~PendingFile() { remove(); }

  void finish() {
    if (target_.direct) return write_file(target_.file, text_, path_);
    std::error_code error;
    fs::rename(pending_, target_.file, error);
    if (error) refuse(path_, error.message(), "name another file");
    pending_.clear();
  }

 private:
  void remove() const {
    std::error_code error;
    if (!pending_.empty()) fs::remove(pending_, error);
  }

  static inline int num_pending = 0;  // of this process

  std::string path_;
  Target target_;
  fs::path pending_;
  std::string text_;  // of direct files
};

}  // namespace

void check_outputs(const std::vector<Output>& outputs) {
  std::vector<std::pair<fs::path, const Output*>> seen;
  for (const Output& output : outputs) {
    if (output.path.empty()) continue;
    const fs::path file = output.path == "-" ? fs::path("-") : fs::absolute(target_of(output.path).file);
    for (const auto& [other, first] : seen) {
      if (other.lexically_normal() != file.lexically_normal()) continue;
      fail_invalid("[options] ", first->option, " and ", output.option, " both go to ", quoted(output.path, 200),
                   "; give them different files");
    }
    seen.emplace_back(file, &output);
  }
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

}  // namespace evenspan
