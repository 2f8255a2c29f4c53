// Megatron's indexed data: PREFIX.bin holds tokens back to back; PREFIX.idx holds, little-endian and unaligned,
//   0 "MMIDIDX\0\0" | 9 u64 version 1 | 17 u8 type | 18 u64 sequences S | 26 u64 document bounds D
//   34 int32[S] lengths | int64[S] byte offsets into .bin | int64[D] first sequence of each document, the last is S
//   (and int8[S] modes in multimodal data, which are refused)
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "evenspan/core/error.h"
#include "evenspan/train/corpus.h"

namespace evenspan::train {
namespace {

constexpr char kMagic[] = "MMIDIDX\0";  // 9 bytes with the terminating zero
constexpr size_t kHeaderBytes = 34;

class MappedFile {
 public:
  explicit MappedFile(const std::string& path) : path_(path) {
    const int descriptor = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
    if (descriptor < 0) fail(ErrorKind::resource, "[data] cannot open ", path, ": ", std::strerror(errno));
    struct stat info {};
    const bool known = ::fstat(descriptor, &info) == 0 && S_ISREG(info.st_mode);
    num_bytes_ = known ? static_cast<size_t>(info.st_size) : 0;
    void* address = num_bytes_ == 0 ? nullptr : ::mmap(nullptr, num_bytes_, PROT_READ, MAP_PRIVATE, descriptor, 0);
    const int error = errno;
    ::close(descriptor);
    if (!known) fail(ErrorKind::resource, "[data] ", path, " is not a file");
    if (address == MAP_FAILED) fail(ErrorKind::resource, "[data] cannot map ", path, ": ", std::strerror(error));
    bytes_ = static_cast<const char*>(address);
  }
  ~MappedFile() {
    if (bytes_ != nullptr) ::munmap(const_cast<char*>(bytes_), num_bytes_);
  }
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  size_t num_bytes() const { return num_bytes_; }
  const std::string& path() const { return path_; }
  // The arrays are not aligned, so values are copied out. REQUIRES: the bytes are inside the file.
  template <class T>
  T at(size_t offset) const {
    T value;
    std::memcpy(&value, bytes_ + offset, sizeof value);
    return value;
  }

 private:
  std::string path_;
  size_t num_bytes_ = 0;
  const char* bytes_ = nullptr;
};

struct TokenType {
  size_t num_bytes = 0;
  int64_t (*read)(const MappedFile&, size_t offset) = nullptr;
};

template <class T>
constexpr TokenType token_type() {
  return {sizeof(T), [](const MappedFile& file, size_t offset) { return static_cast<int64_t>(file.at<T>(offset)); }};
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
  explicit Megatron(const std::string& path) : index_(prefix_of(path) + ".idx"), tokens_(prefix_of(path) + ".bin") {
    if (index_.num_bytes() < kHeaderBytes)
      malformed("it has ", index_.num_bytes(), " bytes, the header alone has ", kHeaderBytes);
    for (size_t i = 0; i < sizeof kMagic; ++i) {
      if (index_.at<char>(i) != kMagic[i]) malformed("it does not begin with MMIDIDX");
    }
    if (index_.at<uint64_t>(9) != 1) malformed("its version must be 1, it is ", index_.at<uint64_t>(9));
    type_ = find_type(index_.at<uint8_t>(17), index_.path());
    const auto num_sequences = index_.at<uint64_t>(18);
    const auto num_bounds = index_.at<uint64_t>(26);
    const uint64_t room = index_.num_bytes() - kHeaderBytes;
    if (num_sequences > room / 12 || num_bounds > room / 8 || 12 * num_sequences + 8 * num_bounds > room) {
      malformed("it is truncated: ", num_sequences, " sequences and ", num_bounds, " document bounds do not fit into ",
                index_.num_bytes(), " bytes");
    }
    if (12 * num_sequences + 8 * num_bounds != room)
      malformed("it has ", room - 12 * num_sequences - 8 * num_bounds,
                " bytes after its arrays; multimodal data are not supported");
    if (num_bounds == 0) malformed("it has no document bounds; there is one more of them than documents");
    read_documents(num_sequences, num_bounds);
  }

  int64_t num_documents() const override { return static_cast<int64_t>(documents_.size()); }
  int64_t length(int64_t document) const override { return at(document).length; }
  std::string name(int64_t document) const override {
    return join_text(tokens_.path(), ", document ", at(document).number);
  }
  int64_t vocabulary() const override { return 0; }
  void read(int64_t document, Span span, int64_t* out) const override {
    const Document& d = at(document);
    for (int64_t i = span.begin; i < span.end; ++i) {
      *out++ = type_.read(tokens_, d.offset + static_cast<size_t>(i) * type_.num_bytes);
    }
  }

 private:
  struct Document {
    int64_t number = 0;  // in the file, empty ones counted
    size_t offset = 0;   // bytes
    int64_t length = 0;  // tokens
  };

  template <class... Parts>
  [[noreturn]] void malformed(const Parts&... parts) const {
    fail_invalid("[data] ", index_.path(), " is not a Megatron index: ", parts...);
  }

  void read_documents(size_t num_sequences, size_t num_bounds) {
    const size_t offsets = kHeaderBytes + 4 * num_sequences;
    const size_t bounds = offsets + 8 * num_sequences;
    int64_t first = index_.at<int64_t>(bounds);
    if (first != 0) malformed("its first document must begin at sequence 0, it begins at ", first);
    for (size_t d = 0; d + 1 < num_bounds; ++d) {
      const auto last = index_.at<int64_t>(bounds + 8 * (d + 1));
      if (last < first || last > static_cast<int64_t>(num_sequences)) {
        malformed("document ", d, " has the sequences [", first, ", ", last, ") of ", num_sequences);
      }
      Document document{static_cast<int64_t>(d), 0, 0};
      for (int64_t s = first; s < last; ++s) {
        const auto length = index_.at<int32_t>(kHeaderBytes + 4 * static_cast<size_t>(s));
        const auto offset = index_.at<int64_t>(offsets + 8 * static_cast<size_t>(s));
        check_sequence(s, length, offset);
        if (s == first) document.offset = static_cast<size_t>(offset);
        if (static_cast<size_t>(offset) != document.offset + static_cast<size_t>(document.length) * type_.num_bytes) {
          malformed("the sequences of document ", d, " must lie back to back; sequence ", s, " begins at byte ",
                    offset);
        }
        document.length += length;
      }
      first = last;
      if (document.length == 0) {
        ++dropped_.empty;
      } else {
        documents_.push_back(document);
      }
    }
    if (first != static_cast<int64_t>(num_sequences))
      malformed("its documents end at sequence ", first, " of ", num_sequences);
    if (documents_.empty()) malformed("it holds no document with a token; ", dropped_.empty, " are empty");
  }

  void check_sequence(int64_t s, int32_t length, int64_t offset) const {
    if (length < 0 || offset < 0) malformed("sequence ", s, " has the length ", length, " and the offset ", offset);
    const size_t bytes = static_cast<size_t>(length) * type_.num_bytes;
    if (static_cast<size_t>(offset) > tokens_.num_bytes() ||
        bytes > tokens_.num_bytes() - static_cast<size_t>(offset)) {
      fail_invalid("[data] ", tokens_.path(), " is truncated: sequence ", s, " needs the bytes [", offset, ", ",
                   static_cast<size_t>(offset) + bytes, "), the file has ", tokens_.num_bytes());
    }
  }

  const Document& at(int64_t document) const { return documents_[static_cast<size_t>(document)]; }

  MappedFile index_;
  MappedFile tokens_;
  TokenType type_;
  std::vector<Document> documents_;
};

}  // namespace

std::unique_ptr<Corpus> open_megatron(const std::string& path) { return std::make_unique<Megatron>(path); }

}  // namespace evenspan::train
