// evenspan version: which Evenspan this is.
#include "cli/command_table.h"

namespace evenspan::cli {
namespace {

Options version_declared() {
  return {"evenspan version", "Prints the version of Evenspan.", "Example:\n  evenspan version", {}};
}

}  // namespace

OptionList version_options() { return version_declared().list(); }

int version_command(const Arguments& words) {
  Options options = version_declared();
  if (!options.parse(words)) return kDone;
  print_version();
  return kDone;
}

}  // namespace evenspan::cli
