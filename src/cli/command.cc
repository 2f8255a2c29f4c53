#include "cli/command.h"

#include <cstdio>
#include <iostream>
#include <new>

#include "evenspan/core/error.h"

namespace evenspan::cli {

int run(const std::string& name, int (*command)(const Arguments&), const Arguments& arguments) {
  const auto complain = [&name](int code, const auto&... parts) {
    std::cout.flush();
    std::cerr << name << ": " << join_text(parts...) << std::endl;
    return code;
  };
  try {
    const int code = command(arguments);
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
