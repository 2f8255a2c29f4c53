// Files that are read piece by piece while a run goes on.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

namespace evenspan::files {

// An open regular file that must stay as it is. Nothing is mapped: a file that shrinks is an error and no signal. All
// members may be called from any thread.
class InputFile {
 public:
  // What a file is known by when it is opened again: its size, and when it was written last.
  struct Stamp {
    int64_t num_bytes = 0;
    int64_t seconds = 0, nanoseconds = 0;
    friend bool operator==(const Stamp&, const Stamp&) = default;
  };

  // `what` begins errors ("data"). Throws resource for what is no regular file or cannot be opened, and for a file that
  // is not as `known` any more.
  InputFile(std::string path, std::string what, const std::optional<Stamp>& known = std::nullopt);
  ~InputFile();
  InputFile(const InputFile&) = delete;
  InputFile& operator=(const InputFile&) = delete;

  const std::string& path() const { return path_; }
  int64_t num_bytes() const { return stamp_.num_bytes; }
  const Stamp& stamp() const { return stamp_; }
  // Reads `num_bytes` bytes from `offset` on. Throws resource when they cannot be read, and when the file was written
  // to since it was opened. REQUIRES: they lie in the file.
  void read(int64_t offset, int64_t num_bytes, void* out) const;
  std::string read(int64_t offset, int64_t num_bytes) const;

 private:
  Stamp look() const;
  void require(const Stamp& known, const Stamp& now) const;
  [[noreturn]] void refuse(const char* what_failed) const;

  std::string path_, what_;
  int descriptor_ = -1;
  Stamp stamp_;
};

constexpr int64_t kMostTextBytes = int64_t{1} << 27;

// The text of a file or pipe. Throws resource when it cannot be read, and invalid_argument for more than
// kMostTextBytes.
std::string read_text(const std::string& path, const std::string& what);

}  // namespace evenspan::files
