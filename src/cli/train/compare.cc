#include <cstdio>

#include "cli/train/commands.h"
#include "evenspan/core/error.h"
#include "evenspan/core/output_file.h"
#include "evenspan/train/report.h"

namespace evenspan::cli {
namespace {

constexpr const char* kUsage = R"(evenspan-train compare RUN REFERENCE [REPACKED ...] [--page FILE]
    RUN        run.folder of a finished run
    REFERENCE  the same run on one rank
    REPACKED   one-rank runs with other values of data.pack_order: the measure of rounding; needed unless float64
    --page     writes one self-contained HTML page
Exit code: 0 the runs are equal, 1 they are not, 2 bad input.
)";

}  // namespace

int compare(const Arguments& arguments) {
  const Parsed parsed = parse_arguments(arguments);
  if (parsed.help) {
    std::printf("%s", kUsage);
    return kDone;
  }
  require_known(parsed, {"page"});
  if (parsed.positional.size() < 2) {
    fail_invalid("[compare] RUN and REFERENCE are needed, ", parsed.positional.size(),
                 " folders were given; see compare --help");
  }
  for (const auto& [name, path] : parsed.options) check_outputs({{"--" + name, path}});
  const train::Comparison comparison = train::compare_runs(parsed.positional[0], parsed.positional[1],
                                                           {parsed.positional.begin() + 2, parsed.positional.end()});
  std::printf("%s", train::comparison_table(comparison).c_str());
  for (const auto& [name, path] : parsed.options) {
    write_outputs({{path, train::comparison_page(comparison)}});
    std::printf("page: %s\n", path.c_str());
  }
  return comparison.equal ? kDone : kRefused;
}

}  // namespace evenspan::cli
