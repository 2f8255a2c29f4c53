#include "fuzz/mutate.h"

#include <algorithm>
#include <cstring>
#include <limits>

namespace evenspan::fuzz {
namespace {

constexpr std::string_view kNumbers[] = {"0",
                                         "-0",
                                         "-0.0",
                                         "-1",
                                         "1",
                                         "2",
                                         "0.5",
                                         "1e308",
                                         "-1e308",
                                         "1e-308",
                                         "5e-324",
                                         "1e400",
                                         "1e18",
                                         "1e-18",
                                         "nan",
                                         "inf",
                                         "NaN",
                                         "-Infinity",
                                         "255",
                                         "65536",
                                         "1048576",
                                         "2147483647",
                                         "2147483648",
                                         "-2147483648",
                                         "4294967296",
                                         "9007199254740993",
                                         "9223372036854775807",
                                         "9223372036854775808",
                                         "-9223372036854775808",
                                         "18446744073709551615",
                                         "18446744073709551616",
                                         "123456789012345678901234567890"};

constexpr int64_t kWords[] = {0,
                              1,
                              -1,
                              2,
                              127,
                              255,
                              4096,
                              1 << 30,
                              std::numeric_limits<int32_t>::max(),
                              std::numeric_limits<int32_t>::min(),
                              int64_t{1} << 32,
                              int64_t{1} << 40,
                              int64_t{1} << 62,
                              std::numeric_limits<int64_t>::max(),
                              std::numeric_limits<int64_t>::min()};

bool in_number(char c) { return (c >= '0' && c <= '9') || c == '-' || c == '+' || c == '.' || c == 'e' || c == 'E'; }

// [begin, end) somewhere in `text`, mostly short.
std::pair<size_t, size_t> piece(const std::string& text, Random* random) {
  const size_t begin = random->below(text.size() + 1);
  const size_t most = random->below(4) == 0 ? text.size() : size_t{32};
  return {begin, std::min(text.size(), begin + random->below(most + 1))};
}

void replace_number(std::string* text, Random* random) {
  if (text->empty()) return;
  const auto digit = [](char c) { return c >= '0' && c <= '9'; };
  const auto from = text->begin() + static_cast<int64_t>(random->below(text->size()));
  auto begin = std::find_if(from, text->end(), digit);
  if (begin == text->end()) begin = std::find_if(text->begin(), text->end(), digit);
  const auto end = std::find_if_not(begin, text->end(), in_number);
  text->replace(begin, end, kNumbers[random->below(std::size(kNumbers))]);
}

void replace_word(std::string* text, Random* random) {
  const size_t size = random->below(2) == 0 ? 4 : 8;
  if (text->size() < size) return;
  const int64_t word = kWords[random->below(std::size(kWords))];
  std::memcpy(text->data() + random->below(text->size() - size + 1), &word, size);
}

void damage(const std::vector<std::string>& corpus, const std::vector<std::string_view>& words, Random* random,
            std::string* text) {
  const auto [begin, end] = piece(*text, random);
  const std::string taken = text->substr(begin, end - begin);
  switch (random->below(9)) {
    case 0:
      if (!text->empty()) {
        char& c = (*text)[random->below(text->size())];
        c = static_cast<char>(c ^ (1 << random->below(8)));
      }
      break;
    case 1:
      text->erase(begin, end - begin);
      break;
    case 2:
      text->insert(random->below(2) == 0 ? begin : random->below(text->size() + 1), taken);
      break;
    case 3: {
      const std::string& other = corpus[random->below(corpus.size())];
      const auto [from, to] = piece(other, random);
      text->replace(begin, end - begin, other, from, to - from);
      break;
    }
    case 4: {  // a word, now and then very often
      const std::string_view word = words[random->below(words.size())];
      const size_t times = random->below(16) == 0 ? random->below(1000) : 1;
      std::string many;
      for (size_t i = 0; i < times; ++i) many += word;
      text->insert(begin, many);
      break;
    }
    case 5:
    case 6:
    case 7:
      replace_number(text, random);
      break;
    default:
      replace_word(text, random);
  }
}

}  // namespace

std::string mutated(const std::vector<std::string>& corpus, const std::vector<std::string_view>& words,
                    Random* random) {
  std::string text = corpus[random->below(corpus.size())];
  for (size_t n = 1 + random->below(4); n > 0; --n) damage(corpus, words, random, &text);
  if (text.size() > kMostInputBytes) text.resize(kMostInputBytes);
  return text;
}

}  // namespace evenspan::fuzz
