// Typed fields of JSON files that users write. Every error names the file, the field and what stands there.
#pragma once

#include <nlohmann/json.hpp>

#include <cstdint>
#include <string>
#include <vector>

namespace evenspan::files {

// An object of a file. Lives no longer than the JSON that it was made from.
class Fields {
 public:
  // `what` names the kind of file in errors ("topology"), `path` where in it the object is, "" or "levels[1]".
  Fields(const nlohmann::json& json, const std::string& what, const std::string& file, const std::string& path = "");

  const std::string& file() const { return file_; }
  bool has(const std::string& key) const;  // and it is not null
  int64_t whole(const std::string& key) const;
  int64_t whole(const std::string& key, int64_t otherwise) const;
  int64_t whole_between(const std::string& key, int64_t least, int64_t most) const;
  uint64_t word(const std::string& key) const;  // 64 bits without a sign
  double number(const std::string& key) const;
  double number(const std::string& key, double otherwise) const;
  double number_between(const std::string& key, double least, double most) const;
  std::string text(const std::string& key) const;
  std::vector<int64_t> wholes(const std::string& key) const;
  std::vector<double> numbers(const std::string& key) const;
  std::vector<std::vector<int64_t>> whole_rows(const std::string& key) const;  // a list of lists of whole numbers
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

}  // namespace evenspan::files
