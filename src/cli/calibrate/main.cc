// evenspan-calibrate: measures this machine with ranks as threads of this process.
#include <malloc.h>

#include <cstdio>
#include <string>

#include "cli/command.h"
#include "evenspan/calibrate/command.h"

namespace {

constexpr const char* kUsage = R"(Usage: evenspan calibrate --out FILE [options]

Measures this machine, with ranks as threads of this process: attention kernels over a grid of query and key lengths,
what operations and segments cost beside them, copies, matrix products, and the links between ranks.
torchrun --nproc-per-node N -m evenspan calibrate takes the same options and runs a process a rank.

Options:
)";

constexpr const char* kExamples = R"(
Examples:
  evenspan calibrate --out mine.json --ranks 2 --heads 8 --kv-heads 2 --head-dim 64 --dtype f32
  evenspan simulate --profile mine.json --lengths lengths.txt --ranks 2 --heads 8 --kv-heads 2 --head-dim 64 --dtype f32

A machine that does something else is measured with it. Exit code: 0 written, 2 bad arguments or a failure.
)";

int measure(const evenspan::cli::Arguments& words) {
  const evenspan::calibrate::Command command = evenspan::calibrate::parse_command(words);
  if (command.help) {
    std::printf("%s%s%s", kUsage, evenspan::calibrate::describe_options().c_str(), kExamples);
    return evenspan::cli::kDone;
  }
  std::string said;
  evenspan::comm::run_threads(command.ranks.value_or(2), [&](const evenspan::comm::Communicator& communicator) {
    const std::string own = evenspan::calibrate::run_command(command, communicator);
    if (communicator.rank() == 0) said = own;
  });
  std::fprintf(command.out == "-" ? stderr : stdout, "%s", said.c_str());
  return evenspan::cli::kDone;
}

}  // namespace

int main(int argc, char** argv) {
  // As evenspan-train, whose kernels are measured here: freed memory keeps its pages.
  ::mallopt(M_MMAP_THRESHOLD, 1 << 30);
  ::mallopt(M_TRIM_THRESHOLD, 1 << 30);
  return evenspan::cli::run("evenspan calibrate", measure, {argv + 1, argv + argc});
}
