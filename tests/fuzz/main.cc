// evenspan_fuzz: damages inputs and watches what reads them. An input passes if it is taken, or refused with an error
// in the form of the house; anything else fails: another exception, a signal, more than 10 s, more memory than allowed.
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>

#include "evenspan/core/error.h"
#include "fuzz/kinds.h"
#include "fuzz/mutate.h"

namespace evenspan::fuzz {
namespace {

namespace fs = std::filesystem;

constexpr const char* kUsage =
    R"(evenspan_fuzz --corpus FOLDER [--iterations N] [--seconds S] [--seed N] [--kind NAME] [--memory BYTES]
    --corpus      a folder of inputs for each kind; all of them are read as they are first
    --iterations  mutated inputs of all kinds together, dealt in turn; default 20000
    --seconds     ends earlier after so long; default 0: never
    --seed        default 1; the same seed makes the same inputs
    --kind        of this kind alone
    --memory      limit of the address space; not with the address sanitizer
)";

struct Options {
  std::string corpus, kind;
  int64_t iterations = 20000, seconds = 0, seed = 1, memory = 0;
};

constexpr unsigned kMostSeconds = 10;  // of an input

char g_input[256];  // what is read now, for the handler of signals

void on_signal(int signal) {
  const char* name = strsignal(signal);
  for (const char* text : std::initializer_list<const char*>{"evenspan_fuzz: FAILED: ", name,
                                                             " (an alarm means more than 10 s) on ", g_input, "\n"}) {
    if (::write(STDERR_FILENO, text, std::strlen(text)) < 0) break;
  }
  std::signal(signal, SIG_DFL);
  std::raise(signal);
}

std::vector<Kind> all_kinds() {
  return {plan_text(),      lengths(), profile(),     topology(),      model(),  config(),
          megatron_index(), jsonl(),   safetensors(), trainer_state(), metrics()};
}

// "[operation] rule, actual values, what to do", on one line.
bool in_house_form(const std::string& text) {
  constexpr size_t kMostBytes = 3000;
  const bool printable = std::none_of(text.begin(), text.end(), [](char c) { return c >= 0 && c < ' '; });
  return text.starts_with('[') && text.find("] ") != text.npos && text.size() < kMostBytes && printable;
}

// What is wrong with how the input was read; empty if nothing is.
std::string problem(const Kind& kind, const std::string& bytes, const std::string& folder) {
  try {
    kind.take(bytes, folder);
    return "";
  } catch (const Error& error) {
    if (error.kind() == ErrorKind::communication) return join_text("refused as communication: ", error.what());
    return in_house_form(error.what()) ? "" : join_text("an error in another form: ", error.what());
  } catch (const std::bad_alloc&) {
    return "more memory than allowed";
  } catch (const std::exception& error) {
    return join_text("another exception: ", error.what());
  }
}

std::vector<std::string> read_corpus(const fs::path& folder) {
  std::vector<fs::path> paths;
  for (const auto& entry : fs::directory_iterator(folder)) paths.push_back(entry.path());
  std::sort(paths.begin(), paths.end());
  std::vector<std::string> corpus;
  for (const fs::path& path : paths) {
    std::ifstream in(path, std::ios::binary);
    corpus.emplace_back(std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>());
  }
  return corpus;
}

Options parse_options(int argc, char** argv) {
  Options options;
  const std::map<std::string, int64_t*> numbers = {{"--iterations", &options.iterations},
                                                   {"--seconds", &options.seconds},
                                                   {"--seed", &options.seed},
                                                   {"--memory", &options.memory}};
  for (int i = 1; i + 1 < argc; i += 2) {
    const std::string name = argv[i];
    if (const auto number = numbers.find(name); number != numbers.end()) {
      *number->second = std::atoll(argv[i + 1]);
    } else if (name == "--corpus") {
      options.corpus = argv[i + 1];
    } else if (name == "--kind") {
      options.kind = argv[i + 1];
    } else {
      options.corpus.clear();
      break;
    }
  }
  return options;
}

struct Target {
  Kind kind;
  std::vector<std::string> corpus;
  std::string folder;
  double longest_seconds = 0;
};

// Reads one input; false where it fails, which is then kept for a look.
bool read_one(const std::string& bytes, const std::string& label, Target* target) {
  std::snprintf(g_input, sizeof g_input, "%s, kept as %s/input", label.c_str(), target->folder.c_str());
  write(target->folder + "/input", bytes);
  const auto start = std::chrono::steady_clock::now();
  ::alarm(kMostSeconds);
  const std::string text = problem(target->kind, bytes, target->folder);
  ::alarm(0);
  target->longest_seconds = std::max(target->longest_seconds,
                                     std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count());
  if (text.empty()) return true;
  std::fprintf(stderr, "evenspan_fuzz: FAILED: %s: %s\n", g_input, text.c_str());
  return false;
}

int run(const Options& options) {
  for (const int signal : {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT, SIGALRM}) std::signal(signal, on_signal);
  if (options.memory > 0) {
    const struct rlimit limit { static_cast<rlim_t>(options.memory), static_cast<rlim_t>(options.memory) };
    if (::setrlimit(RLIMIT_AS, &limit) != 0) return 2;
  }
  const fs::path scratch = fs::temp_directory_path() / ("evenspan-fuzz-" + std::to_string(::getpid()));
  std::vector<Target> targets;
  for (const Kind& kind : all_kinds()) {
    if (!options.kind.empty() && options.kind != kind.name) continue;
    targets.push_back({kind, read_corpus(fs::path(options.corpus) / kind.name), (scratch / kind.name).string()});
    fs::create_directories(targets.back().folder);
  }
  const auto start = std::chrono::steady_clock::now();
  const auto seconds = [&start] {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  };
  for (Target& target : targets) {
    for (size_t i = 0; i < target.corpus.size(); ++i) {
      if (!read_one(target.corpus[i], join_text(target.kind.name, " ", i, " of the corpus"), &target)) return 1;
    }
  }
  int64_t done = 0;
  for (; done < options.iterations && (options.seconds == 0 || seconds() < static_cast<double>(options.seconds));
       ++done) {
    Target& target = targets[static_cast<size_t>(done) % targets.size()];
    Random random(static_cast<uint64_t>(options.seed) * 0x9e3779b97f4a7c15u + static_cast<uint64_t>(done));
    const std::string bytes = mutated(target.corpus, target.kind.words, &random);
    if (!read_one(bytes, join_text(target.kind.name, " ", done, " of seed ", options.seed), &target)) return 1;
  }
  for (const Target& target : targets) {
    std::printf("%-15s %3zu inputs in the corpus, the longest of all took %.2f s\n", target.kind.name,
                target.corpus.size(), target.longest_seconds);
  }
  struct rusage usage {};
  ::getrusage(RUSAGE_SELF, &usage);
  std::printf("%lld mutated inputs in %.1f s, at most %ld MB: all taken, or refused with an error\n",
              static_cast<long long>(done), seconds(), usage.ru_maxrss / 1024);
  fs::remove_all(scratch);
  return 0;
}

}  // namespace
}  // namespace evenspan::fuzz

int main(int argc, char** argv) {
  const evenspan::fuzz::Options options = evenspan::fuzz::parse_options(argc, argv);
  if (options.corpus.empty()) {
    std::fputs(evenspan::fuzz::kUsage, stderr);
    return 2;
  }
  return evenspan::fuzz::run(options);
}
