// Reads the words of a text line by line and knows where it stands, for messages.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

namespace evenspan::plan {

// Gives the next line, without its line feed, which stays until the next call; false at the end.
using NextLine = std::function<bool(std::string_view* line)>;

// Lines that are blank or begin with '#' are passed over; spaces and tabs between words mean nothing. A method that
// expects something throws invalid_argument with line, column, what was expected and what stands there instead.
class Scanner {
 public:
  explicit Scanner(NextLine next) : next_(std::move(next)) {}

  // Goes to the next line with something on it. False at the end of the text. Throws when the current line has a rest.
  bool next_line();

  int64_t line() const { return line_; }  // of the current line, counted from 1
  bool at_line_end();

  // Whether the next word is `word`, entirely; accept_word() takes it if so. Words are letters, digits and any of _.:-
  bool at_word(std::string_view word);
  bool accept_word(std::string_view word);
  void expect_word(std::string_view word);
  // The next word, whatever it is; `what` names it in messages.
  std::string_view word(std::string_view what);
  // Letters and underscores only, so that a name may be followed by a sign without a space.
  std::string_view name(std::string_view what);

  // Whether the line goes on with these characters (no word boundary needed); accept() takes them if so.
  bool at(std::string_view characters);
  bool accept(std::string_view characters);
  void expect(std::string_view characters);

  // A decimal integer in [least, most].
  int64_t integer(std::string_view what, int64_t least, int64_t most);
  // A decimal number that is not "nan".
  double number(std::string_view what);

  // Goes back to the start of what the last call took, for messages about it.
  void step_back() { at_ = last_; }

  [[noreturn]] void fail_expected(std::string_view what);
  [[noreturn]] void fail_at(int64_t line, std::string_view rule) const;  // a rule about a whole line

 private:
  void skip_spaces();
  std::string_view rest() const { return text_.substr(at_); }
  // Whether something that ends before `after` is followed by none of the characters that `more` accepts.
  template <class F>
  bool ends_at(const char* after, F more) const;
  std::string found();

  NextLine next_;
  std::string_view text_;  // of the current line
  size_t at_ = 0;          // next character
  size_t last_ = 0;        // where the last taken thing began
  int64_t line_ = 0;
  bool at_end_ = false;  // of the text
};

}  // namespace evenspan::plan
