// Megatron's indexed data: PREFIX.bin holds tokens back to back; PREFIX.idx holds, little-endian and unaligned,
//   0 "MMIDIDX\0\0" | 9 u64 version 1 | 17 u8 type | 18 u64 sequences S | 26 u64 document bounds D
//   34 int32[S] lengths | int64[S] byte offsets into .bin | int64[D] first sequence of each document, the last is S
//   (and int8[S] modes in multimodal data, which are refused)
#include <algorithm>
#include <cstring>

#include "evenspan/core/error.h"
#include "evenspan/train/corpus.h"
#include "files/input_file.h"

namespace evenspan::train {
namespace {

constexpr char kMagic[] = "MMIDIDX\0";  // 9 bytes with the terminating zero
constexpr int64_t kHeaderBytes = 34;

// Values that lie one after another in a file, read a chunk at a time.
template <class T>
class Column {
 public:
  Column(const files::InputFile& file, int64_t offset, int64_t size) : file_(file), offset_(offset), left_(size) {}
  // REQUIRES: not more calls than values.
  T next() {
    if (at_ == chunk_.size()) {
      constexpr int64_t kMostValues = 1 << 13;
      chunk_.resize(static_cast<size_t>(std::min(left_, kMostValues)));
      at_ = 0;
      const auto num_bytes = static_cast<int64_t>(chunk_.size() * sizeof(T));
      file_.read(offset_, num_bytes, chunk_.data());
      offset_ += num_bytes;
      left_ -= static_cast<int64_t>(chunk_.size());
    }
    return chunk_[at_++];
  }

 private:
  const files::InputFile& file_;
  int64_t offset_, left_;
  std::vector<T> chunk_;
  size_t at_ = 0;
};

struct TokenType {
  int64_t num_bytes = 0;
  int64_t (*read)(const char* bytes) = nullptr;
};

template <class T>
constexpr TokenType token_type() {
  return {sizeof(T), [](const char* bytes) {
            T value;
            std::memcpy(&value, bytes, sizeof value);
            return static_cast<int64_t>(value);
          }};
}

TokenType find_type(uint8_t code, const std::string& path) {
  switch (code) {
    case 1:
      return token_type<uint8_t>();
    case 2:
      return token_type<int8_t>();
    case 3:
      return token_type<int16_t>();
    case 4:
      return token_type<int32_t>();
    case 5:
      return token_type<int64_t>();
    case 8:
      return token_type<uint16_t>();
    case 6:
    case 7:
      fail_invalid("[data] ", path, ": tokens must be integers, the type code ", int{code}, " is a floating type");
    default:
      fail_invalid("[data] ", path, ": the type code must be 1 to 8, it is ", int{code});
  }
}

std::string prefix_of(const std::string& path) {
  return path.ends_with(".bin") || path.ends_with(".idx") ? path.substr(0, path.size() - 4) : path;
}

class Megatron : public Corpus {
 public:
  explicit Megatron(const std::string& path)
      : index_(prefix_of(path) + ".idx", "data"), tokens_(prefix_of(path) + ".bin", "data") {
    if (index_.num_bytes() < kHeaderBytes)
      malformed("it has ", index_.num_bytes(), " bytes, the header alone has ", kHeaderBytes);
    const std::string header = index_.read(0, kHeaderBytes);
    if (!header.starts_with(std::string(kMagic, sizeof kMagic))) malformed("it does not begin with MMIDIDX");
    if (value<uint64_t>(header, 9) != 1) malformed("its version must be 1, it is ", value<uint64_t>(header, 9));
    type_ = find_type(value<uint8_t>(header, 17), index_.path());
    const auto num_sequences = value<uint64_t>(header, 18);
    const auto num_bounds = value<uint64_t>(header, 26);
    const auto room = static_cast<uint64_t>(index_.num_bytes() - kHeaderBytes);
    if (num_sequences > room / 12 || num_bounds > room / 8 || 12 * num_sequences + 8 * num_bounds > room) {
      malformed("it is truncated: ", num_sequences, " sequences and ", num_bounds, " document bounds do not fit into ",
                index_.num_bytes(), " bytes");
    }
    if (12 * num_sequences + 8 * num_bounds != room)
      malformed("it has ", room - 12 * num_sequences - 8 * num_bounds,
                " bytes after its arrays; multimodal data are not supported");
    if (num_bounds == 0) malformed("it has no document bounds; there is one more of them than documents");
    read_documents(static_cast<int64_t>(num_sequences), static_cast<int64_t>(num_bounds));
  }

  int64_t num_documents() const override { return static_cast<int64_t>(documents_.size()); }
  int64_t length(int64_t document) const override { return at(document).length; }
  std::string name(int64_t document) const override {
    return join_text(tokens_.path(), ", document ", at(document).number);
  }
  int64_t vocabulary() const override { return 0; }
  void read(int64_t document, Span span, int64_t* out) const override {
    const Document& d = at(document);
    const std::string bytes = tokens_.read(d.offset + span.begin * type_.num_bytes, span.size() * type_.num_bytes);
    for (int64_t i = 0; i < span.size(); ++i) *out++ = type_.read(bytes.data() + i * type_.num_bytes);
  }

 private:
  struct Document {
    int64_t number = 0;  // in the file, empty ones counted
    int64_t offset = 0;  // bytes
    int64_t length = 0;  // tokens
  };

  // A header's fields are not aligned, so values are copied out.
  template <class T>
  static T value(const std::string& header, size_t offset) {
    T value;
    std::memcpy(&value, header.data() + offset, sizeof value);
    return value;
  }

  template <class... Parts>
  [[noreturn]] void malformed(const Parts&... parts) const {
    fail_invalid("[data] ", index_.path(), " is not a Megatron index: ", parts..., "; make it again");
  }

  void read_documents(int64_t num_sequences, int64_t num_bounds) {
    Column<int32_t> lengths(index_, kHeaderBytes, num_sequences);
    Column<int64_t> offsets(index_, kHeaderBytes + 4 * num_sequences, num_sequences);
    Column<int64_t> bounds(index_, kHeaderBytes + 12 * num_sequences, num_bounds);
    int64_t first = bounds.next();
    int64_t all_bytes = 0;
    if (first != 0) malformed("its first document must begin at sequence 0, it begins at ", first);
    for (int64_t d = 0; d + 1 < num_bounds; ++d) {
      const int64_t last = bounds.next();
      if (last < first || last > num_sequences) {
        malformed("document ", d, " has the sequences [", first, ", ", last, ") of ", num_sequences);
      }
      Document document{d, 0, 0};
      for (int64_t s = first; s < last; ++s) {
        const int32_t length = lengths.next();
        const int64_t offset = offsets.next();
        check_sequence(s, length, offset);
        if (s == first) document.offset = offset;
        if (offset != document.offset + document.length * type_.num_bytes) {
          malformed("the sequences of document ", d, " must lie back to back; sequence ", s, " begins at byte ",
                    offset);
        }
        document.length += length;
        all_bytes += length * type_.num_bytes;
      }
      if (all_bytes > tokens_.num_bytes()) {
        malformed("its documents up to ", d, " have ", all_bytes, " bytes, ", tokens_.path(), " has ",
                  tokens_.num_bytes(), ": documents do not share tokens");
      }
      first = last;
      if (document.length == 0) {
        ++dropped_.empty;
      } else {
        documents_.push_back(document);
      }
    }
    if (first != num_sequences) malformed("its documents end at sequence ", first, " of ", num_sequences);
    if (documents_.empty()) malformed("it holds no document with a token; ", dropped_.empty, " are empty");
  }

  void check_sequence(int64_t s, int32_t length, int64_t offset) const {
    if (length < 0 || offset < 0) malformed("sequence ", s, " has the length ", length, " and the offset ", offset);
    const int64_t bytes = length * type_.num_bytes;
    if (offset > tokens_.num_bytes() || bytes > tokens_.num_bytes() - offset) {
      fail_invalid("[data] ", tokens_.path(), " is truncated: sequence ", s, " needs ", bytes, " bytes from byte ",
                   offset, " on, the file has ", tokens_.num_bytes(), "; copy it again");
    }
  }

  const Document& at(int64_t document) const { return documents_[static_cast<size_t>(document)]; }

  files::InputFile index_;
  files::InputFile tokens_;
  TokenType type_;
  std::vector<Document> documents_;
};

}  // namespace

std::unique_ptr<Corpus> open_megatron(const std::string& path) { return std::make_unique<Megatron>(path); }

}  // namespace evenspan::train
