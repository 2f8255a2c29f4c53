#include "files/json_fields.h"

#include <algorithm>
#include <iomanip>

#include "evenspan/core/error.h"
#include "evenspan/core/nearest.h"
#include "evenspan/core/quoted.h"

namespace evenspan::files {

using Json = nlohmann::json;

namespace {

// Numbers above 2^63 - 1 are kept without a sign.
bool is_whole(const Json& value) {
  return value.is_number_integer() && !(value.is_number_unsigned() && value.get<uint64_t>() >> 63 != 0);
}

// A value in a message: in quotes, in ASCII, and not all of a long one.
std::string shown(const Json& value) {
  constexpr size_t kMostBytes = 100;
  const std::string text = value.dump(-1, ' ', /*ensure_ascii=*/true);
  return join_text(std::quoted(text.size() > kMostBytes ? text.substr(0, kMostBytes) + "..." : text));
}

}  // namespace

Fields::Fields(const Json& json, const std::string& what, const std::string& file, const std::string& path)
    : json_(json), what_(what), file_(file), path_(path) {
  if (!json.is_object()) {
    fail_invalid("[", what, "] ", file, path.empty() ? "" : ": " + path, " is ", shown(json),
                 "; it is an object, {...}");
  }
}

bool Fields::has(const std::string& key) const { return json_.contains(key) && !json_.at(key).is_null(); }

const Json& Fields::at(const std::string& key) const {
  if (!has(key)) {
    fail_invalid("[", what_, "] ", file_, ": the field ", path_.empty() ? "" : path_ + ".", key, " is missing");
  }
  return json_.at(key);
}

const Json& Fields::list(const std::string& key) const {
  if (!at(key).is_array()) refuse(key, "it is a list, [...]");
  return at(key);
}

void Fields::refuse(const std::string& key, const std::string& rule) const {
  fail_invalid("[", what_, "] ", file_, ": ", path_.empty() ? "" : path_ + ".", key, " is ",
               has(key) ? shown(at(key)) : "missing", "; ", rule);
}

int64_t Fields::whole(const std::string& key) const {
  if (!is_whole(at(key))) refuse(key, "it is a whole number below 2^63");
  return at(key).get<int64_t>();
}

int64_t Fields::whole_between(const std::string& key, int64_t least, int64_t most) const {
  const int64_t value = whole(key);
  if (value < least || value > most) refuse(key, join_text("it is from ", least, " to ", most));
  return value;
}

uint64_t Fields::word(const std::string& key) const {
  if (!at(key).is_number_unsigned()) refuse(key, "it is a whole number from 0 to 2^64 - 1");
  return at(key).get<uint64_t>();
}

int64_t Fields::whole(const std::string& key, int64_t otherwise) const { return has(key) ? whole(key) : otherwise; }

double Fields::number(const std::string& key) const {
  if (!at(key).is_number()) refuse(key, "it is a number");
  return at(key).get<double>();
}

double Fields::number_between(const std::string& key, double least, double most) const {
  const double value = number(key);
  if (!(value >= least && value <= most)) refuse(key, join_text("it is from ", least, " to ", most));
  return value;
}

double Fields::number(const std::string& key, double otherwise) const { return has(key) ? number(key) : otherwise; }

std::string Fields::text(const std::string& key) const {
  if (!at(key).is_string()) refuse(key, "it is a text");
  return at(key).get<std::string>();
}

std::vector<int64_t> Fields::wholes(const std::string& key) const {
  std::vector<int64_t> values;
  for (const Json& value : list(key)) {
    if (!is_whole(value)) refuse(key, "it is a list of whole numbers below 2^63");
    values.push_back(value.get<int64_t>());
  }
  return values;
}

std::vector<std::vector<int64_t>> Fields::whole_rows(const std::string& key) const {
  std::vector<std::vector<int64_t>> rows;
  for (const Json& row : list(key)) {
    std::vector<int64_t>& values = rows.emplace_back();
    if (!row.is_array()) refuse(key, "it is a list of lists");
    for (const Json& value : row) {
      if (!is_whole(value)) refuse(key, "it holds whole numbers below 2^63");
      values.push_back(value.get<int64_t>());
    }
  }
  return rows;
}

std::vector<double> Fields::numbers(const std::string& key) const {
  std::vector<double> values;
  for (const Json& value : list(key)) {
    if (!value.is_number()) refuse(key, "it is a list of numbers");
    values.push_back(value.get<double>());
  }
  return values;
}

std::vector<double> Fields::table(const std::string& key) const {
  std::vector<double> values;
  const Json& rows = list(key);
  for (const Json& row : rows) {
    if (!row.is_array() || row.size() != rows.front().size()) refuse(key, "it is a list of equally long rows");
    for (const Json& value : row) {
      if (!value.is_number()) refuse(key, "it holds numbers");
      values.push_back(value.get<double>());
    }
  }
  return values;
}

std::vector<std::string> Fields::texts(const std::string& key) const {
  std::vector<std::string> values;
  for (const Json& value : list(key)) {
    if (!value.is_string()) refuse(key, "it is a list of texts");
    values.push_back(value.get<std::string>());
  }
  return values;
}

Fields Fields::object(const std::string& key) const {
  return Fields(at(key), what_, file_, (path_.empty() ? "" : path_ + ".") + key);
}

std::vector<Fields> Fields::objects(const std::string& key) const {
  std::vector<Fields> all;
  for (const Json& value : list(key)) {
    all.emplace_back(value, what_, file_,
                     (path_.empty() ? "" : path_ + ".") + key + "[" + std::to_string(all.size()) + "]");
  }
  return all;
}

void Fields::refuse_others(const std::vector<std::string>& known) const {
  for (const auto& [key, value] : json_.items()) {
    if (std::find(known.begin(), known.end(), key) != known.end()) continue;
    fail_invalid("[", what_, "] ", file_, path_.empty() ? "" : ": " + path_, " has a field ", quoted(key),
                 " that means nothing here", did_you_mean(key, known));
  }
}

}  // namespace evenspan::files
