// Values of configuration keys as text.
#pragma once

#include <string>

#include "evenspan/train/config.h"

namespace evenspan::train {

// "integer", "bytes", "number", "text", "true|false" or "list".
std::string type_name(const Key& key);
// The bound value in TOML's syntax.
std::string value_text(const Key& key);

}  // namespace evenspan::train
