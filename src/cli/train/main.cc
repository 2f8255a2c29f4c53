// evenspan-train: trains with ranks as threads of this process, compares runs, and probes a model.
#include <malloc.h>

#include <cstdio>
#include <exception>
#include <string>
#include <vector>

#include "cli/train/commands.h"
#include "evenspan/core/error.h"

int main(int argc, char** argv) {
  // Activations are freed and allocated again all the time: keep their pages instead of giving them back to the system.
  ::mallopt(M_MMAP_THRESHOLD, 1 << 30);
  ::mallopt(M_TRIM_THRESHOLD, 1 << 30);
  std::setvbuf(stdout, nullptr, _IOLBF, 0);
  const std::vector<std::string> arguments(argv + 1, argv + argc);
  try {
    if (!arguments.empty() && arguments[0] == "compare")
      return evenspan::cli::compare({arguments.begin() + 1, arguments.end()});
    if (!arguments.empty() && arguments[0] == "probe")
      return evenspan::cli::probe({arguments.begin() + 1, arguments.end()});
    return evenspan::cli::train(arguments);
  } catch (const evenspan::Error& e) {
    std::fprintf(stderr, "evenspan-train: %s\n", e.what());
    return 1;
  } catch (const std::exception& e) {
    std::fprintf(stderr, "evenspan-train: unexpected: %s\n", e.what());
    return 70;
  }
}
