#include "evenspan/core/bytes.h"

#include <algorithm>
#include <cctype>
#include <charconv>
#include <limits>
#include <string_view>
#include <utility>

#include "evenspan/core/error.h"
#include "evenspan/core/quoted.h"

namespace evenspan {
namespace {

// "; did you mean '80GiB'?" for 80G, 80GB, 80gib and 80 GiB; else nothing.
std::string hint(const std::string& text) {
  const size_t digits = std::min(text.find_first_not_of("0123456789"), text.size());
  std::string unit;
  for (const char c : text.substr(digits)) {
    if (c != ' ') unit += static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
  }
  if (digits == 0 || unit.empty() || std::string_view("KMG").find(unit[0]) == std::string_view::npos) return "";
  const std::string rest = unit.substr(1);
  if (!rest.empty() && rest != "B" && rest != "IB") return "";
  return "; did you mean '" + text.substr(0, digits) + unit[0] + "iB'?";
}

}  // namespace

int64_t parse_bytes(const std::string& subject, const std::string& text) {
  int64_t unit = 1;
  std::string_view number = text;
  for (const auto& [suffix, bytes] : {std::pair<const char*, int64_t>{"KiB", int64_t{1} << 10},
                                      std::pair<const char*, int64_t>{"MiB", int64_t{1} << 20},
                                      std::pair<const char*, int64_t>{"GiB", int64_t{1} << 30}}) {
    if (!text.ends_with(suffix)) continue;
    unit = bytes;
    number.remove_suffix(3);
  }
  constexpr int64_t kMost = std::numeric_limits<int64_t>::max();
  int64_t count = 0;
  const auto [at, error] = std::from_chars(number.data(), number.data() + number.size(), count);
  const bool is_whole = error == std::errc() && at == number.data() + number.size();
  if (error == std::errc::result_out_of_range || (is_whole && (count > kMost / unit || count < -(kMost / unit)))) {
    fail_invalid(subject, " is ", quoted(text), ", beyond ", kMost, " bytes");
  }
  if (!is_whole) {
    fail_invalid(subject, " is ", quoted(text),
                 "; give a whole number of bytes, KiB, MiB or GiB, such as 1000, 64KiB, 8MiB or 2GiB", hint(text));
  }
  return count * unit;
}

}  // namespace evenspan
