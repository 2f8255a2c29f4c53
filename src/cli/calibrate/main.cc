// evenspan-calibrate: measures this machine with ranks as threads of this process.
#include <malloc.h>

#include <cstdio>
#include <exception>
#include <string>
#include <vector>

#include "evenspan/calibrate/command.h"
#include "evenspan/core/error.h"

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

int run(const std::vector<std::string>& words) {
  const evenspan::calibrate::Command command = evenspan::calibrate::parse_command(words);
  if (command.help) {
    std::printf("%s%s%s", kUsage, evenspan::calibrate::describe_options().c_str(), kExamples);
    return 0;
  }
  std::string said;
  evenspan::comm::run_threads(command.ranks.value_or(2), [&](const evenspan::comm::Communicator& communicator) {
    const std::string own = evenspan::calibrate::run_command(command, communicator);
    if (communicator.rank() == 0) said = own;
  });
  std::fprintf(command.out == "-" ? stderr : stdout, "%s", said.c_str());
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  // As evenspan-train, whose kernels are measured here: freed memory keeps its pages.
  ::mallopt(M_MMAP_THRESHOLD, 1 << 30);
  ::mallopt(M_TRIM_THRESHOLD, 1 << 30);
  try {
    return run({argv + 1, argv + argc});
  } catch (const evenspan::Error& e) {
    std::fprintf(stderr, "evenspan calibrate: %s\n", e.what());
    return 2;
  } catch (const std::exception& e) {
    std::fprintf(stderr, "evenspan calibrate: unexpected: %s\n", e.what());
    return 70;
  }
}
