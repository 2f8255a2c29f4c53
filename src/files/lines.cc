#include "files/lines.h"

#include <algorithm>

#include "evenspan/core/error.h"

namespace evenspan::files {

std::string Lines::where() const { return join_text(file_.path(), ":", number_); }

bool Lines::next(std::string_view* line) {
  constexpr int64_t kChunkBytes = int64_t{1} << 20;
  for (size_t searched = begin_;;) {
    const int64_t read_end = buffer_begin_ + static_cast<int64_t>(buffer_.size());
    const bool at_end = read_end == file_.num_bytes();
    const size_t end = std::min(buffer_.find('\n', searched), buffer_.size());
    if (end < buffer_.size() || at_end) {
      if (begin_ >= buffer_.size()) return false;
      ++number_;
      offset_ = buffer_begin_ + static_cast<int64_t>(begin_);
      *line = std::string_view(buffer_).substr(begin_, end - begin_);
      begin_ = std::min(end + 1, buffer_.size());
      return true;
    }
    buffer_.erase(0, begin_);
    buffer_begin_ += static_cast<int64_t>(begin_);
    begin_ = 0;
    searched = buffer_.size();
    if (static_cast<int64_t>(searched) > kMostLineBytes) {
      fail_invalid("[data] ", file_.path(), ":", number_ + 1, " has more than ", kMostLineBytes,
                   " bytes; is it the right file?");
    }
    buffer_ += file_.read(read_end, std::min(kChunkBytes, file_.num_bytes() - read_end));
  }
}

}  // namespace evenspan::files
