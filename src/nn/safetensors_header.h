// What safetensors files say of themselves. Without torch.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "files/input_file.h"

namespace evenspan::nn {

struct TensorEntry {
  std::string type;            // a name of the format that num_bytes_of_type() knows
  std::vector<int64_t> shape;  // extents are not negative, and no product of them overflows
  int64_t begin = 0, end = 0;  // bytes of the file
};

struct SafetensorsHeader {
  std::map<std::string, TensorEntry> tensors;
  std::map<std::string, std::string> metadata;
};

// Bytes of an element of a type that torch has too; 0 for any other.
int64_t num_bytes_of_type(const std::string& type);

// Throws invalid_argument for a file that is truncated or malformed: tensors fill the rest of the file without gaps.
SafetensorsHeader read_safetensors_header(const files::InputFile& file);

// Of model.safetensors.index.json: the name of the file, beside the index, that holds each tensor.
std::map<std::string, std::string> read_weight_map(const std::string& path);

}  // namespace evenspan::nn
