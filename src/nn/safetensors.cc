#include "evenspan/nn/safetensors.h"

#include <ATen/ops/empty.h>
#include <fcntl.h>
#include <nlohmann/json.hpp>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>

#include "evenspan/core/error.h"
#include "nn/safetensors_header.h"

namespace evenspan::nn {
namespace {

static_assert(std::endian::native == std::endian::little, "safetensors files are little-endian");

const std::pair<const char*, at::ScalarType> kTypes[] = {
    {"F64", at::kDouble}, {"F32", at::kFloat}, {"BF16", at::kBFloat16}, {"F16", at::kHalf}, {"I64", at::kLong},
    {"I32", at::kInt},    {"I16", at::kShort}, {"I8", at::kChar},       {"U8", at::kByte},  {"BOOL", at::kBool},
};

class Writer {
 public:
  explicit Writer(const std::string& path)
      : path_(path), descriptor_(::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644)) {
    if (descriptor_ < 0) fail(ErrorKind::resource, "[file] cannot open ", path, ": ", std::strerror(errno));
  }
  ~Writer() { ::close(descriptor_); }
  Writer(const Writer&) = delete;
  Writer& operator=(const Writer&) = delete;
  void write(const void* data, size_t num_bytes) {
    const char* at = static_cast<const char*>(data);
    while (num_bytes > 0) {
      const ssize_t n = ::write(descriptor_, at, num_bytes);
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) fail(ErrorKind::resource, "[file] cannot write ", path_, ": ", std::strerror(errno));
      at += n;
      num_bytes -= static_cast<size_t>(n);
    }
  }
  void flush() {
    if (::fsync(descriptor_) != 0) fail(ErrorKind::resource, "[file] cannot flush ", path_, ": ", std::strerror(errno));
  }

 private:
  std::string path_;
  int descriptor_;
};

}  // namespace

struct SafetensorsFile::Contents {
  explicit Contents(const std::string& path) : file(path, "safetensors"), header(read_safetensors_header(file)) {}
  const TensorEntry& entry(const std::string& name) const {
    const auto found = header.tensors.find(name);
    if (found == header.tensors.end()) fail_invalid("[safetensors] ", file.path(), " has no tensor ", name);
    return found->second;
  }

  files::InputFile file;
  SafetensorsHeader header;
};

SafetensorsFile::SafetensorsFile(const std::string& path) : contents_(std::make_shared<Contents>(path)) {}

std::vector<std::string> SafetensorsFile::names() const {
  std::vector<std::string> out;
  for (const auto& [name, entry] : contents_->header.tensors) out.push_back(name);
  return out;
}

bool SafetensorsFile::contains(const std::string& name) const { return contents_->header.tensors.contains(name); }

std::vector<int64_t> SafetensorsFile::shape(const std::string& name) const { return contents_->entry(name).shape; }

at::Tensor SafetensorsFile::tensor(const std::string& name) const {
  const TensorEntry& entry = contents_->entry(name);
  const auto* type =
      std::find_if(std::begin(kTypes), std::end(kTypes), [&](const auto& known) { return entry.type == known.first; });
  EVENSPAN_CHECK_OP(type, !=, std::end(kTypes));
  at::Tensor out = at::empty(entry.shape, type->second);
  contents_->file.read(entry.begin, entry.end - entry.begin, out.mutable_data_ptr());
  return out;
}

const std::map<std::string, std::string>& SafetensorsFile::metadata() const { return contents_->header.metadata; }

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

}  // namespace evenspan::nn
