// JSON of unknown origin: the one reader of all that is read as JSON.
#pragma once

#include <nlohmann/json.hpp>

#include <cstdint>
#include <string>
#include <string_view>

namespace evenspan::files {

// A text within these bounds is read in memory in proportion to it, and what walks through it may recurse.
constexpr int64_t kMostJsonDepth = 64;                 // objects and lists inside each other
constexpr int64_t kMostJsonValues = int64_t{1} << 22;  // numbers, texts, objects, lists, ...

// The JSON in `text`; `what` names its kind in errors ("topology") and `file` where it is from. Throws invalid_argument
// for text that is no JSON or not UTF-8, with line and column, for an object that has a key twice, for numbers that no
// double holds, and beyond the bounds above.
nlohmann::json parse_json(std::string_view text, const std::string& what, const std::string& file);

}  // namespace evenspan::files
