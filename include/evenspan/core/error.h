// Errors of Evenspan: what a user, a file or the network can cause is an `Error`; what only a bug can cause is a failed
// check, which throws `InternalError` with both operands in its text.
#pragma once

#include <sstream>
#include <stdexcept>
#include <string>
#include <string_view>

namespace evenspan {

enum class ErrorKind {
  invalid_argument,  // the caller's input breaks a rule
  unsupported,       // correct input that this build or backend cannot do; never approximated
  communication,     // a peer died, stalled or disagrees
  resource,          // memory, files, time
};

// Text form: "[operation] rule, the actual values, what to do".
class Error : public std::runtime_error {
 public:
  Error(ErrorKind kind, const std::string& text) : std::runtime_error(text), kind_(kind) {}
  ErrorKind kind() const { return kind_; }

 private:
  ErrorKind kind_;
};

// A bug of Evenspan itself; please report it.
class InternalError : public std::logic_error {
 public:
  using std::logic_error::logic_error;
};

// Joins the arguments as a stream would print them.
template <class... Parts>
std::string join_text(const Parts&... parts) {
  std::ostringstream out;
  (out << ... << parts);
  return out.str();
}

template <class... Parts>
[[noreturn]] void fail(ErrorKind kind, const Parts&... parts) {
  throw Error(kind, join_text(parts...));
}

template <class... Parts>
[[noreturn]] void fail_invalid(const Parts&... parts) {
  fail(ErrorKind::invalid_argument, parts...);
}

namespace internal {
template <class A, class B>
[[noreturn]] void check_failed(const char* file, int line, const char* expression, const A& a, const B& b) {
  throw InternalError(join_text(file, ":", line, ": check failed: ", expression, " (", a, " against ", b, ")"));
}
}  // namespace internal

}  // namespace evenspan

// Checks of invariants that only a bug can break. Both operands are printed and evaluated once.
#define EVENSPAN_CHECK_OP(a, op, b)                                                                      \
  do {                                                                                                   \
    const auto& evenspan_a = (a);                                                                        \
    const auto& evenspan_b = (b);                                                                        \
    if (!(evenspan_a op evenspan_b)) {                                                                   \
      ::evenspan::internal::check_failed(__FILE__, __LINE__, #a " " #op " " #b, evenspan_a, evenspan_b); \
    }                                                                                                    \
  } while (false)
#define EVENSPAN_CHECK_EQ(a, b) EVENSPAN_CHECK_OP(a, ==, b)
#define EVENSPAN_CHECK_NE(a, b) EVENSPAN_CHECK_OP(a, !=, b)
#define EVENSPAN_CHECK_LT(a, b) EVENSPAN_CHECK_OP(a, <, b)
#define EVENSPAN_CHECK_LE(a, b) EVENSPAN_CHECK_OP(a, <=, b)
#define EVENSPAN_CHECK_GE(a, b) EVENSPAN_CHECK_OP(a, >=, b)
