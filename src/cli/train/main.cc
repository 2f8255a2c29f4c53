// evenspan-train: trains with ranks as threads of this process, compares runs, and probes a model.
#include <malloc.h>

#include <cstdio>

#include "cli/train/commands.h"

namespace {

int start(const evenspan::cli::Arguments& words) {
  const evenspan::cli::Arguments rest(words.begin() + (words.empty() ? 0 : 1), words.end());
  if (!words.empty() && words[0] == "compare") return evenspan::cli::compare(rest);
  if (!words.empty() && words[0] == "probe") return evenspan::cli::probe(rest);
  return evenspan::cli::train(words);
}

}  // namespace

int main(int argc, char** argv) {
  // Activations are freed and allocated again all the time: keep their pages instead of giving them back to the system.
  ::mallopt(M_MMAP_THRESHOLD, 1 << 30);
  ::mallopt(M_TRIM_THRESHOLD, 1 << 30);
  std::setvbuf(stdout, nullptr, _IOLBF, 0);
  return evenspan::cli::run("evenspan train", start, {argv + 1, argv + argc});
}
