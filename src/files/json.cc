#include "files/json.h"

#include <algorithm>
#include <limits>
#include <vector>

#include "evenspan/core/error.h"
#include "evenspan/core/quoted.h"
#include "files/utf8.h"

namespace evenspan::files {
namespace {

using Json = nlohmann::json;

// Builds the value that the parser tells of, within the bounds.
class Builder : public nlohmann::json_sax<Json> {
 public:
  Builder(std::string_view text, const std::string& what, const std::string& file)
      : text_(text), what_(what), file_(file) {}

  Json take() { return std::move(root_); }

  bool null() override { return add(nullptr); }
  bool boolean(bool value) override { return add(value); }
  bool number_integer(number_integer_t value) override { return add(value); }
  bool number_unsigned(number_unsigned_t value) override { return add(value); }
  bool number_float(number_float_t value, const string_t&) override { return add(value); }
  bool string(string_t& value) override { return add(std::move(value)); }
  bool binary(binary_t& value) override { return add(std::move(value)); }
  bool start_object(size_t) override { return open(Json::object()); }
  bool start_array(size_t) override { return open(Json::array()); }
  bool end_object() override { return close(); }
  bool end_array() override { return close(); }

  bool key(string_t& name) override {
    if (open_.back()->contains(name)) refuse("an object has the key ", quoted(name), " twice; leave one of them out");
    member_ = &(*open_.back())[std::move(name)];
    return true;
  }

  bool parse_error(size_t position, const std::string&, const Json::exception& error) override {
    if (dynamic_cast<const Json::out_of_range*>(&error) != nullptr) {
      fail_invalid("[", what_, "] ", file_, " holds a number beyond ", std::numeric_limits<double>::max());
    }
    const int64_t not_utf8 = find_invalid_utf8(text_.data(), static_cast<int64_t>(text_.size()));
    if (not_utf8 >= 0) {
      fail_invalid("[", what_, "] ", file_, " is not UTF-8 at byte ", not_utf8, "; JSON is, convert it");
    }
    const std::string_view before = text_.substr(0, position > 0 ? position - 1 : 0);
    const auto line = 1 + std::count(before.begin(), before.end(), '\n');
    const size_t line_begin = before.find_last_of('\n') == before.npos ? 0 : before.find_last_of('\n') + 1;
    fail_invalid("[", what_, "] ", file_, " is no JSON from line ", line, ", column ", before.size() - line_begin + 1,
                 " on, where ", quoted(text_.substr(before.size(), 20)), " stands");
  }

 private:
  template <class... Parts>
  [[noreturn]] void refuse(const Parts&... parts) const {
    fail_invalid("[", what_, "] ", file_, " is refused: ", parts...);
  }

  Json* place(Json value) {
    if (++num_values_ > kMostJsonValues) refuse("it has more than ", kMostJsonValues, " values");
    if (open_.empty()) return &(root_ = std::move(value));
    if (open_.back()->is_object()) return &(*member_ = std::move(value));
    open_.back()->push_back(std::move(value));
    return &open_.back()->back();
  }
  bool add(Json value) {
    place(std::move(value));
    return true;
  }
  bool open(Json value) {
    if (static_cast<int64_t>(open_.size()) == kMostJsonDepth) {
      refuse("objects and lists stand in each other more than ", kMostJsonDepth, " deep");
    }
    open_.push_back(place(std::move(value)));
    return true;
  }
  bool close() {
    open_.pop_back();
    return true;
  }

  std::string_view text_;
  const std::string& what_;
  const std::string& file_;
  Json root_;
  std::vector<Json*> open_;  // objects and lists that are not closed yet, outermost first
  Json* member_ = nullptr;   // that the last key named
  int64_t num_values_ = 0;
};

}  // namespace

Json parse_json(std::string_view text, const std::string& what, const std::string& file) {
  Builder builder(text, what, file);
  Json::sax_parse(text, &builder);
  return builder.take();
}

}  // namespace evenspan::files
