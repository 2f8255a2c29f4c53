#include "evenspan/core/grouped.h"

namespace evenspan {

std::string grouped(int64_t number) {
  std::string text = std::to_string(number);
  const int64_t first_digit = number < 0 ? 1 : 0;
  for (int64_t at = static_cast<int64_t>(text.size()) - 3; at > first_digit; at -= 3) {
    text.insert(static_cast<size_t>(at), ",");
  }
  return text;
}

}  // namespace evenspan
