// Typed fields of JSON files that users write. Every error names the file, the field and what stands there.
#pragma once

#include <nlohmann/json.hpp>

#include <cstdint>
#include <string>
#include <vector>

namespace evenspan::machine {

// An object of a file. Lives no longer than the JSON that it was made from.
class Fields {
 public:
  // `what` names the kind of file in errors ("topology"), `path` where in it the object is, "" or "levels[1]".
  Fields(const nlohmann::json& json, const std::string& what, const std::string& file, const std::string& path = "");

  bool has(const std::string& key) const;  // and it is not null
  int64_t whole(const std::string& key) const;
  int64_t whole(const std::string& key, int64_t otherwise) const;
  double number(const std::string& key) const;
  double number(const std::string& key, double otherwise) const;
  std::string text(const std::string& key) const;
  std::vector<int64_t> wholes(const std::string& key) const;
  std::vector<double> numbers(const std::string& key) const;
  std::vector<double> table(const std::string& key) const;  // a list of lists of numbers, one after another
  std::vector<std::string> texts(const std::string& key) const;
  Fields object(const std::string& key) const;
  std::vector<Fields> objects(const std::string& key) const;

  // Throws for a field that is none of `known`, with the nearest of them.
  void refuse_others(const std::vector<std::string>& known) const;
  [[noreturn]] void refuse(const std::string& key, const std::string& rule) const;

 private:
  const nlohmann::json& at(const std::string& key) const;
  const nlohmann::json& list(const std::string& key) const;
  const nlohmann::json& json_;
  std::string what_, file_, path_;
};

// The JSON in `text`. Throws invalid_argument with line and column for text that is none, and
// for numbers that no double holds.
nlohmann::json parse_json(const std::string& text, const std::string& what, const std::string& file);

}  // namespace evenspan::machine
