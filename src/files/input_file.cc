#include "files/input_file.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <memory>

#include "evenspan/core/error.h"
#include "evenspan/core/quoted.h"

namespace evenspan::files {

InputFile::InputFile(std::string path, std::string what, const std::optional<Stamp>& known)
    : path_(std::move(path)),
      what_(std::move(what)),
      descriptor_(::open(path_.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK)) {
  if (descriptor_ < 0) refuse("cannot be opened");
  try {
    stamp_ = look();
    if (known) require(*known, stamp_);
  } catch (...) {
    ::close(descriptor_);
    throw;
  }
}

InputFile::~InputFile() { ::close(descriptor_); }

void InputFile::refuse(const char* what_failed) const {
  fail(ErrorKind::resource, "[", what_, "] ", path_, " ", what_failed, ": ", std::strerror(errno));
}

InputFile::Stamp InputFile::look() const {
  struct stat info {};
  if (::fstat(descriptor_, &info) != 0) refuse("cannot be read");
  if (!S_ISREG(info.st_mode)) {
    fail(ErrorKind::resource, "[", what_, "] ", path_, " is not a file; name a regular file");
  }
  return {info.st_size, info.st_mtim.tv_sec, info.st_mtim.tv_nsec};
}

void InputFile::require(const Stamp& known, const Stamp& now) const {
  if (now == known) return;
  fail(ErrorKind::resource, "[", what_, "] ", path_, " had ", known.num_bytes, " bytes when it was opened first and ",
       now.num_bytes == known.num_bytes ? "was written to since" : join_text("has ", now.num_bytes, " now"),
       "; files must not change while a run reads them, restore it and start again");
}

void InputFile::read(int64_t offset, int64_t num_bytes, void* out) const {
  char* to = static_cast<char*>(out);
  while (num_bytes > 0) {
    const ssize_t n = ::pread(descriptor_, to, static_cast<size_t>(num_bytes), offset);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) refuse("cannot be read");
    if (n == 0) break;  // it shrank, which its stamp says
    to += n;
    offset += n;
    num_bytes -= n;
  }
  require(stamp_, look());
  if (num_bytes > 0) fail(ErrorKind::resource, "[", what_, "] ", path_, " ends before byte ", offset + num_bytes);
}

std::string InputFile::read(int64_t offset, int64_t num_bytes) const {
  std::string bytes(static_cast<size_t>(num_bytes), '\0');
  read(offset, num_bytes, bytes.data());
  return bytes;
}

std::string read_text(const std::string& path, const std::string& what) {
  const auto close = [](FILE* file) { std::fclose(file); };
  const std::unique_ptr<FILE, decltype(close)> file(std::fopen(path.c_str(), "rb"), close);
  const auto refuse = [&] {
    fail(ErrorKind::resource, "[", what, "] ", quoted(path, 200), " cannot be read: ", std::strerror(errno),
         "; name a file that is there and may be read");
  };
  if (file == nullptr) refuse();
  std::string text;
  char buffer[1 << 16];
  for (size_t n; (n = std::fread(buffer, 1, sizeof buffer, file.get())) > 0;) {
    text.append(buffer, n);
    if (static_cast<int64_t>(text.size()) > kMostTextBytes) {
      fail_invalid("[", what, "] ", quoted(path, 200), " has more than ", kMostTextBytes,
                   " bytes, which no text of its kind has; is it the right file?");
    }
  }
  if (std::ferror(file.get())) refuse();
  return text;
}

}  // namespace evenspan::files
