#include "plan/text/scanner.h"

#include <charconv>
#include <cmath>

#include "evenspan/core/error.h"
#include "evenspan/core/quoted.h"

namespace evenspan::plan {
namespace {

bool is_letter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || c == '_'; }
bool is_digit(char c) { return c >= '0' && c <= '9'; }
bool is_word(char c) { return is_letter(c) || is_digit(c) || c == '.' || c == ':' || c == '-'; }
bool is_space(char c) { return c == ' ' || c == '\t' || c == '\r'; }

template <class F>
std::string_view prefix_of(std::string_view text, F accepts) {
  size_t n = 0;
  while (n < text.size() && accepts(text[n])) ++n;
  return text.substr(0, n);
}

}  // namespace

bool Scanner::next_line() {
  if (!at_line_end()) fail_expected("the end of the line");
  for (;;) {
    at_ = 0;
    text_ = {};
    at_end_ = !next_(&text_);
    ++line_;
    if (at_end_) return false;
    if (!at_line_end() && text_[at_] != '#') return true;
  }
}

void Scanner::skip_spaces() {
  while (at_ < text_.size() && is_space(text_[at_])) ++at_;
}

bool Scanner::at_line_end() {
  skip_spaces();
  return at_ >= text_.size();
}

bool Scanner::at_word(std::string_view word) {
  skip_spaces();
  return prefix_of(rest(), is_word) == word;
}

bool Scanner::accept_word(std::string_view word) {
  if (!at_word(word)) return false;
  last_ = at_;
  at_ += word.size();
  return true;
}

void Scanner::expect_word(std::string_view word) {
  if (!accept_word(word)) fail_expected(join_text('"', word, '"'));
}

std::string_view Scanner::word(std::string_view what) {
  skip_spaces();
  const std::string_view found = prefix_of(rest(), is_word);
  if (found.empty()) fail_expected(what);
  last_ = at_;
  at_ += found.size();
  return found;
}

std::string_view Scanner::name(std::string_view what) {
  skip_spaces();
  const std::string_view found = prefix_of(rest(), is_letter);
  if (found.empty()) fail_expected(what);
  last_ = at_;
  at_ += found.size();
  return found;
}

bool Scanner::at(std::string_view characters) {
  skip_spaces();
  return rest().starts_with(characters);
}

bool Scanner::accept(std::string_view characters) {
  if (!at(characters)) return false;
  last_ = at_;
  at_ += characters.size();
  return true;
}

void Scanner::expect(std::string_view characters) {
  if (!accept(characters)) fail_expected(join_text('"', characters, '"'));
}

template <class F>
bool Scanner::ends_at(const char* after, F more) const {
  const auto next = static_cast<size_t>(after - text_.data());
  return next >= text_.size() || !more(text_[next]);
}

int64_t Scanner::integer(std::string_view what, int64_t least, int64_t most) {
  skip_spaces();
  int64_t value = 0;
  const auto [after, error] = std::from_chars(text_.data() + at_, text_.data() + text_.size(), value);
  // "12x" and "1.5" are not integers that something follows.
  const bool whole = ends_at(after, [](char c) { return is_letter(c) || c == '.'; });
  if (error != std::errc() || !whole || value < least || value > most) {
    fail_expected(join_text(what, ", an integer from ", least, " to ", most));
  }
  last_ = at_;
  at_ = static_cast<size_t>(after - text_.data());
  return value;
}

double Scanner::number(std::string_view what) {
  skip_spaces();
  double value = 0;
  const auto [after, error] = std::from_chars(text_.data() + at_, text_.data() + text_.size(), value);
  if (error != std::errc() || !ends_at(after, is_word) || std::isnan(value)) {
    fail_expected(join_text(what, ", a number"));
  }
  last_ = at_;
  at_ = static_cast<size_t>(after - text_.data());
  return value;
}

std::string Scanner::found() {
  if (at_end_) return "the end of the text";
  if (at_line_end()) return "the end of the line";
  return quoted(prefix_of(rest(), [](char c) { return !is_space(c); }), 24);
}

void Scanner::fail_expected(std::string_view what) {
  skip_spaces();
  const std::string instead = found();
  fail_invalid("[parse] line ", std::max<int64_t>(line_, 1), ", column ", at_ + 1, ": expected ", what, ", found ",
               instead);
}

void Scanner::fail_at(int64_t line, std::string_view rule) const {
  fail_invalid("[parse] line ", line, ", column 1: ", rule);
}

}  // namespace evenspan::plan
