#include "cli/command.h"

#include <cstdio>
#include <iostream>
#include <new>

#include "evenspan/core/error.h"

namespace evenspan::cli {

void print_version() { std::cout << "evenspan " << EVENSPAN_VERSION << "\n"; }

int run(const std::string& name, int (*command)(const Arguments&), const Arguments& arguments) {
  const auto complain = [&name](int code, const auto&... parts) {
    std::cout.flush();
    std::cerr << name << ": " << join_text(parts...) << std::endl;
    return code;
  };
  try {
    const bool asks_version = arguments.size() == 1 && (arguments[0] == "--version" || arguments[0] == "-V");
    if (asks_version) print_version();
    const int code = asks_version ? kDone : command(arguments);
    if (!std::cout.flush() || std::fflush(stdout) != 0 || std::ferror(stdout) != 0)
      return complain(kBadInput, "[output] standard output cannot be written; is the disk full?");
    return code;
  } catch (const Error& error) {
    return complain(kBadInput, error.what());
  } catch (const std::bad_alloc&) {
    return complain(kBadInput, "[memory] this machine has too little memory for the request; plan a smaller batch");
  } catch (const std::exception& error) {
    return complain(kBug, "this is a bug in Evenspan, please report it with the command that you ran: ", error.what());
  }
}

}  // namespace evenspan::cli
