#include "evenspan/core/nearest.h"

#include <algorithm>
#include <limits>

namespace evenspan {
namespace {

// Names that differ only in this are one name to a person.
std::string folded(std::string_view name) {
  std::string text(name);
  for (char& c : text) {
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
    if (c == '-') c = '_';
  }
  return text;
}

}  // namespace

int edit_distance(std::string_view a, std::string_view b) {
  const size_t n = b.size();
  std::vector<int> before(n + 1), last(n + 1), row(n + 1);  // rows i - 2, i - 1 and i of the table
  for (size_t j = 0; j <= n; ++j) row[j] = static_cast<int>(j);
  for (size_t i = 1; i <= a.size(); ++i) {
    before.swap(last);
    last.swap(row);
    row[0] = static_cast<int>(i);
    for (size_t j = 1; j <= n; ++j) {
      const int replaced = last[j - 1] + (a[i - 1] == b[j - 1] ? 0 : 1);
      row[j] = std::min({replaced, last[j] + 1, row[j - 1] + 1});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1]) row[j] = std::min(row[j], before[j - 2] + 1);
    }
  }
  return row[n];
}

std::string nearest_name(std::string_view name, const std::vector<std::string>& candidates) {
  constexpr size_t kMaxLength = 100;  // longer ones are not names; the table would be large
  if (name.size() > kMaxLength) return {};
  const std::string wanted = folded(name);
  std::string best;
  int best_distance = std::numeric_limits<int>::max();
  for (const std::string& candidate : candidates) {
    if (candidate.size() > kMaxLength) continue;
    const std::string other = folded(candidate);
    const int longer = static_cast<int>(std::max(wanted.size(), other.size()));
    const bool is_beginning = wanted.size() >= 3 && other.starts_with(wanted);
    const int distance = is_beginning ? 1 : edit_distance(wanted, other);
    const bool near = is_beginning || (distance <= std::max(2, longer / 3) && distance < longer);
    if (near && distance < best_distance) {
      best = candidate;
      best_distance = distance;
    }
  }
  return best;
}

std::string did_you_mean(std::string_view name, const std::vector<std::string>& candidates) {
  const std::string nearest = nearest_name(name, candidates);
  return nearest.empty() ? std::string() : "; did you mean '" + nearest + "'?";
}

std::string there_are(std::string_view name, const std::vector<std::string>& candidates) {
  std::string text = "; there are ";
  for (const std::string& known : candidates) text += (&known == &candidates.front() ? "" : ", ") + known;
  return text + did_you_mean(name, candidates);
}

}  // namespace evenspan
