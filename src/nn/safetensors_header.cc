#include "nn/safetensors_header.h"

#include <algorithm>
#include <cstring>
#include <filesystem>

#include "evenspan/core/error.h"
#include "files/json.h"
#include "files/json_fields.h"

namespace evenspan::nn {
namespace {

using files::Fields;

constexpr const char* kWhat = "safetensors";
constexpr int64_t kMaxHeaderBytes = 100'000'000;     // as in the format's own library
constexpr int64_t kMostElements = int64_t{1} << 58;  // of 8 bytes

class HeaderReader {
 public:
  explicit HeaderReader(const files::InputFile& file) : file_(file) {}

  SafetensorsHeader read() {
    if (file_.num_bytes() < 8) malformed("it has ", file_.num_bytes(), " bytes, a header needs 8 at least");
    uint64_t header_bytes = 0;
    file_.read(0, 8, &header_bytes);
    if (header_bytes > kMaxHeaderBytes || static_cast<int64_t>(header_bytes) > file_.num_bytes() - 8) {
      malformed("its header claims ", header_bytes, " bytes, the file has ", file_.num_bytes());
    }
    data_begin_ = 8 + static_cast<int64_t>(header_bytes);
    const auto json = files::parse_json(file_.read(8, static_cast<int64_t>(header_bytes)), kWhat, file_.path());
    const Fields in(json, kWhat, file_.path());
    SafetensorsHeader header;
    for (const auto& [name, value] : json.items()) {
      if (name == "__metadata__") {
        const Fields texts(value, kWhat, file_.path(), name);
        for (const auto& [key, text] : value.items()) header.metadata[key] = texts.text(key);
      } else {
        header.tensors.emplace(name, entry(name, Fields(value, kWhat, file_.path(), name)));
      }
    }
    check_ranges(header);
    return header;
  }

 private:
  template <class... Parts>
  [[noreturn]] void malformed(const Parts&... parts) const {
    fail_invalid("[safetensors] ", file_.path(), " is malformed or truncated: ", parts..., "; get it again");
  }

  TensorEntry entry(const std::string& name, const Fields& in) const {
    TensorEntry entry;
    entry.type = in.text("dtype");
    const int64_t element = num_bytes_of_type(entry.type);
    if (element == 0) malformed("the tensor ", name, " has the unknown type ", entry.type);
    entry.shape = in.wholes("shape");
    const std::vector<int64_t> offsets = in.wholes("data_offsets");
    if (offsets.size() != 2) malformed("the tensor ", name, " has ", offsets.size(), " offsets instead of 2");
    const int64_t data_bytes = file_.num_bytes() - data_begin_;
    if (offsets[0] < 0 || offsets[0] > offsets[1] || offsets[1] > data_bytes) {
      malformed("the tensor ", name, " lies at bytes [", offsets[0], ", ", offsets[1], ") of ", data_bytes);
    }
    entry.begin = data_begin_ + offsets[0];
    entry.end = data_begin_ + offsets[1];
    int64_t elements = 1, most = 1;  // the second as if no extent were 0, so that strides do not overflow either
    std::string shape;
    for (const int64_t extent : entry.shape) {
      if (extent < 0) malformed("the tensor ", name, " has the extent ", extent);
      shape += (shape.empty() ? "" : ", ") + std::to_string(extent);
      if (std::max<int64_t>(1, extent) > kMostElements / most) {
        malformed("the tensor ", name, " of shape [", shape, ", ...] has ", offsets[1] - offsets[0], " bytes");
      }
      most *= std::max<int64_t>(1, extent);
      elements *= extent;
    }
    if (elements * element != offsets[1] - offsets[0]) {
      malformed("the tensor ", name, " of shape [", shape, "] has ", offsets[1] - offsets[0], " bytes");
    }
    return entry;
  }

  void check_ranges(const SafetensorsHeader& header) const {
    std::vector<std::pair<int64_t, int64_t>> ranges;
    for (const auto& [name, entry] : header.tensors) ranges.emplace_back(entry.begin, entry.end);
    std::sort(ranges.begin(), ranges.end());
    int64_t at = data_begin_;
    for (const auto& [begin, end] : ranges) {
      if (begin != at) {
        malformed("its tensors leave or share bytes at ", begin - data_begin_, ", the one before ends at ",
                  at - data_begin_);
      }
      at = end;
    }
    if (at != file_.num_bytes()) {
      malformed("its tensors end at byte ", at - data_begin_, " of ", file_.num_bytes() - data_begin_);
    }
  }

  const files::InputFile& file_;
  int64_t data_begin_ = 0;
};

}  // namespace

int64_t num_bytes_of_type(const std::string& type) {
  constexpr std::pair<const char*, int64_t> kTypes[] = {{"F64", 8}, {"F32", 4}, {"BF16", 2}, {"F16", 2}, {"I64", 8},
                                                        {"I32", 4}, {"I16", 2}, {"I8", 1},   {"U8", 1},  {"BOOL", 1}};
  for (const auto& [name, num_bytes] : kTypes) {
    if (type == name) return num_bytes;
  }
  return 0;
}

SafetensorsHeader read_safetensors_header(const files::InputFile& file) { return HeaderReader(file).read(); }

std::map<std::string, std::string> read_weight_map(const std::string& path) {
  const auto json = files::parse_json(files::read_text(path, "model"), "model", path);
  const Fields in = Fields(json, "model", path).object("weight_map");
  std::map<std::string, std::string> shards;
  for (const auto& [name, value] : json.at("weight_map").items()) {
    const std::string shard = in.text(name);
    if (shard.empty() || std::filesystem::path(shard).filename() != shard) {
      in.refuse(name, "it is the name of a file beside the index");
    }
    shards[name] = shard;
  }
  return shards;
}

}  // namespace evenspan::nn
