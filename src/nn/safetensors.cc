#include "evenspan/nn/safetensors.h"

#include <ATen/ops/empty.h>
#include <fcntl.h>
#include <nlohmann/json.hpp>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>
#include <filesystem>

#include "evenspan/core/error.h"

namespace evenspan::nn {
namespace {

static_assert(std::endian::native == std::endian::little, "safetensors files are little-endian");

using Json = nlohmann::json;

constexpr uint64_t kMaxHeaderBytes = 100'000'000;  // as in the format's own library

const std::pair<const char*, at::ScalarType> kTypes[] = {
    {"F64", at::kDouble}, {"F32", at::kFloat}, {"BF16", at::kBFloat16}, {"F16", at::kHalf}, {"I64", at::kLong},
    {"I32", at::kInt},    {"I16", at::kShort}, {"I8", at::kChar},       {"U8", at::kByte},  {"BOOL", at::kBool},
};

// A file descriptor that closes itself.
class File {
 public:
  File(const std::string& path, int flags) : descriptor_(::open(path.c_str(), flags | O_CLOEXEC, 0644)) {
    if (descriptor_ < 0) fail(ErrorKind::resource, "[file] cannot open ", path, ": ", std::strerror(errno));
  }
  ~File() { ::close(descriptor_); }
  File(const File&) = delete;
  File& operator=(const File&) = delete;
  int get() const { return descriptor_; }

 private:
  int descriptor_;
};

class Writer {
 public:
  explicit Writer(const std::string& path) : path_(path), file_(path, O_WRONLY | O_CREAT | O_TRUNC) {}
  void write(const void* data, size_t num_bytes) {
    const char* at = static_cast<const char*>(data);
    while (num_bytes > 0) {
      const ssize_t n = ::write(file_.get(), at, num_bytes);
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) fail(ErrorKind::resource, "[file] cannot write ", path_, ": ", std::strerror(errno));
      at += n;
      num_bytes -= static_cast<size_t>(n);
    }
  }
  void flush() {
    if (::fsync(file_.get()) != 0) fail(ErrorKind::resource, "[file] cannot flush ", path_, ": ", std::strerror(errno));
  }

 private:
  std::string path_;
  File file_;
};

struct Entry {
  at::ScalarType type = at::kFloat;
  std::vector<int64_t> shape;
  uint64_t begin = 0, end = 0;  // bytes after the header
};

}  // namespace

struct SafetensorsFile::Contents {
  std::string path;
  char* map = nullptr;
  size_t num_bytes = 0;
  uint64_t data_begin = 0;
  std::map<std::string, Entry> entries;
  std::map<std::string, std::string> metadata;

  Contents() = default;
  Contents(const Contents&) = delete;
  Contents& operator=(const Contents&) = delete;
  ~Contents() {
    if (map != nullptr) ::munmap(map, num_bytes);
  }

  template <class... Parts>
  [[noreturn]] void malformed(const Parts&... parts) const {
    fail_invalid("[safetensors] ", path, " is malformed or truncated: ", parts...);
  }
  void open();
  void read_header();
  Entry read_entry(const std::string& name, const Json& json, uint64_t data_bytes) const;
};

void SafetensorsFile::Contents::open() {
  const File file(path, O_RDONLY);
  struct stat info {};
  if (::fstat(file.get(), &info) != 0)
    fail(ErrorKind::resource, "[safetensors] cannot read ", path, ": ", std::strerror(errno));
  if (!S_ISREG(info.st_mode)) fail(ErrorKind::resource, "[safetensors] ", path, " is not a file");
  num_bytes = static_cast<size_t>(info.st_size);
  if (num_bytes < 8) malformed("it has ", num_bytes, " bytes, a header needs 8 at least");
  void* address = ::mmap(nullptr, num_bytes, PROT_READ, MAP_PRIVATE, file.get(), 0);
  if (address == MAP_FAILED) fail(ErrorKind::resource, "[safetensors] cannot map ", path, ": ", std::strerror(errno));
  map = static_cast<char*>(address);
}

Entry SafetensorsFile::Contents::read_entry(const std::string& name, const Json& json, uint64_t data_bytes) const {
  Entry entry;
  try {
    const std::string type = json.at("dtype").get<std::string>();
    const auto* known =
        std::find_if(std::begin(kTypes), std::end(kTypes), [&](const auto& t) { return type == t.first; });
    if (known == std::end(kTypes)) malformed("the tensor ", name, " has the unknown type ", type);
    entry.type = known->second;
    entry.shape = json.at("shape").get<std::vector<int64_t>>();
    const auto offsets = json.at("data_offsets").get<std::vector<uint64_t>>();
    if (offsets.size() != 2) malformed("the tensor ", name, " has ", offsets.size(), " offsets instead of 2");
    entry.begin = offsets[0];
    entry.end = offsets[1];
  } catch (const Json::exception& e) {
    malformed("the tensor ", name, ": ", e.what());
  }
  if (entry.begin > entry.end || entry.end > data_bytes) {
    malformed("the tensor ", name, " lies at bytes [", entry.begin, ", ", entry.end, ") of ", data_bytes);
  }
  __extension__ using Wide = unsigned __int128;
  Wide bytes = c10::elementSize(entry.type);
  for (const int64_t extent : entry.shape) {
    if (extent < 0) malformed("the tensor ", name, " has the extent ", extent);
    bytes *= static_cast<uint64_t>(extent);
    if (bytes > num_bytes) break;
  }
  if (bytes != entry.end - entry.begin) {
    malformed("the tensor ", name, " of shape ", at::IntArrayRef(entry.shape), " has ", entry.end - entry.begin,
              " bytes");
  }
  return entry;
}

void SafetensorsFile::Contents::read_header() {
  uint64_t header_bytes = 0;
  std::memcpy(&header_bytes, map, 8);
  if (header_bytes > kMaxHeaderBytes || header_bytes > num_bytes - 8) {
    malformed("its header claims ", header_bytes, " bytes, the file has ", num_bytes);
  }
  data_begin = 8 + header_bytes;
  const Json json = Json::parse(map + 8, map + data_begin, nullptr, /*allow_exceptions=*/false);
  if (json.is_discarded() || !json.is_object()) malformed("its header is not a JSON object");
  const uint64_t data_bytes = num_bytes - data_begin;
  std::vector<std::pair<uint64_t, uint64_t>> ranges;
  for (const auto& [name, value] : json.items()) {
    if (name == "__metadata__") {
      if (!value.is_object()) malformed("__metadata__ is not an object");
      for (const auto& [key, text] : value.items()) {
        if (!text.is_string()) malformed("the metadata ", key, " is not a text");
        metadata[key] = text.get<std::string>();
      }
      continue;
    }
    const Entry entry = read_entry(name, value, data_bytes);
    ranges.emplace_back(entry.begin, entry.end);
    entries.emplace(name, entry);
  }
  std::sort(ranges.begin(), ranges.end());
  uint64_t at = 0;
  for (const auto& [begin, end] : ranges) {
    if (begin != at) malformed("its tensors leave or share bytes at ", begin, ", the one before ends at ", at);
    at = end;
  }
  if (at != data_bytes) malformed("its tensors end at byte ", at, " of ", data_bytes);
}

SafetensorsFile::SafetensorsFile(const std::string& path) {
  auto contents = std::make_shared<Contents>();
  contents->path = path;
  contents->open();
  contents->read_header();
  contents_ = std::move(contents);
}

std::vector<std::string> SafetensorsFile::names() const {
  std::vector<std::string> out;
  for (const auto& [name, entry] : contents_->entries) out.push_back(name);
  return out;
}

bool SafetensorsFile::contains(const std::string& name) const { return contents_->entries.contains(name); }

at::Tensor SafetensorsFile::tensor(const std::string& name) const {
  const auto found = contents_->entries.find(name);
  if (found == contents_->entries.end()) fail_invalid("[safetensors] ", contents_->path, " has no tensor ", name);
  const Entry& entry = found->second;
  at::Tensor out = at::empty(entry.shape, entry.type);
  // Copied, not viewed: offsets need not be aligned to the element.
  std::memcpy(out.mutable_data_ptr(), contents_->map + contents_->data_begin + entry.begin, entry.end - entry.begin);
  return out;
}

const std::map<std::string, std::string>& SafetensorsFile::metadata() const { return contents_->metadata; }

void write_safetensors(const std::string& path, const NamedTensors& tensors,
                       const std::map<std::string, std::string>& metadata) {
  nlohmann::ordered_json header = nlohmann::ordered_json::object();
  if (!metadata.empty()) header["__metadata__"] = metadata;
  uint64_t at = 0;
  for (const auto& [name, tensor] : tensors) {
    const auto* known = std::find_if(std::begin(kTypes), std::end(kTypes),
                                     [&](const auto& t) { return tensor.scalar_type() == t.second; });
    if (known == std::end(kTypes)) {
      fail_invalid("[safetensors] the tensor ", name, " has type ", tensor.scalar_type(), ", which the format has not");
    }
    const uint64_t end = at + static_cast<uint64_t>(tensor.nbytes());
    header[name] = {{"dtype", known->first}, {"shape", tensor.sizes().vec()}, {"data_offsets", {at, end}}};
    at = end;
  }
  std::string text = header.dump();
  text.append((8 - text.size() % 8) % 8, ' ');
  const uint64_t header_bytes = text.size();
  Writer out(path);
  out.write(&header_bytes, 8);
  out.write(text.data(), text.size());
  for (const auto& [name, tensor] : tensors) {
    const at::Tensor dense = tensor.detach().to(at::kCPU).contiguous();
    out.write(dense.const_data_ptr(), dense.nbytes());
  }
  out.flush();
}

void write_file(const std::string& path, const std::string& text) {
  Writer out(path);
  out.write(text.data(), text.size());
  out.flush();
}

std::string read_file(const std::string& path) {
  const File file(path, O_RDONLY);
  std::string text;
  char buffer[1 << 16];
  for (;;) {
    const ssize_t n = ::read(file.get(), buffer, sizeof buffer);
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) fail(ErrorKind::resource, "[file] cannot read ", path, ": ", std::strerror(errno));
    if (n == 0) return text;
    text.append(buffer, static_cast<size_t>(n));
  }
}

}  // namespace evenspan::nn
