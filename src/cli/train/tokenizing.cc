// Text under a model's own tokenizer: started as `python -m evenspan tokenize`, since tokenizers are Python's.
#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>

#include "cli/train/commands.h"
#include "evenspan/core/error.h"

extern char** environ;

namespace evenspan::cli {
namespace {

namespace fs = std::filesystem;

fs::path own_folder() { return fs::read_symlink("/proc/self/exe").parent_path(); }

// Runs a program that PATH or the path names and returns its exit code, -1 if it does not start.
int run_program(const std::vector<std::string>& words, bool quiet) {
  std::vector<char*> argv;
  for (const std::string& word : words) argv.push_back(const_cast<char*>(word.c_str()));
  argv.push_back(nullptr);
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  for (const int stream : {STDOUT_FILENO, STDERR_FILENO}) {
    if (quiet) posix_spawn_file_actions_addopen(&actions, stream, "/dev/null", O_WRONLY, 0);
  }
  pid_t child = 0;
  const int error = posix_spawnp(&child, argv[0], &actions, nullptr, argv.data(), environ);
  posix_spawn_file_actions_destroy(&actions);
  if (error != 0) return -1;
  int status = 0;
  while (waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  return WIFEXITED(status) ? WEXITSTATUS(status) : kSignal + WTERMSIG(status);
}

// An interpreter that has evenspan and transformers: that of the variable EVENSPAN_PYTHON and no other; or the one
// beside this program, where pip puts both, the first of PATH, the one that this program was built with. Empty if there
// is none.
std::string find_python() {
  const char* named = std::getenv("EVENSPAN_PYTHON");
  std::vector<std::string> candidates = {(own_folder() / "python3").string(), "python3", "python", EVENSPAN_BUILT_WITH};
  if (named != nullptr && *named != 0) candidates = {named};
  for (const std::string& python : candidates) {
    if (run_program(
            {python, "-c",
             "import importlib.util as u, sys; sys.exit(not all(map(u.find_spec, ('evenspan', 'transformers'))))"},
            /*quiet=*/true) == 0)
      return python;
  }
  return "";
}

// A program in its build folder uses the package beside it.
void offer_package() {
  const fs::path package = own_folder().parent_path() / "python";
  std::error_code error;
  if (!fs::exists(package / "evenspan" / "_tokenize.py", error)) return;
  const char* given = std::getenv("PYTHONPATH");
  const std::string path = package.string() + (given != nullptr && *given != 0 ? std::string(":") + given : "");
  setenv("PYTHONPATH", path.c_str(), /*overwrite=*/1);
}

}  // namespace

void make_tokens(const train::Config& config) {
  const std::optional<train::Tokenization> t = train::tokenization(config);
  if (!t) return;
  offer_package();
  const std::string python = find_python();
  if (python.empty()) {
    train::with_tokens(config);  // says what to run, where it was not run before
    std::printf(
        "note: no python3 with evenspan and transformers is found, so the tokens in %s.bin are taken as they are\n",
        t->prefix.c_str());
    return;
  }
  std::vector<std::string> words = {python, "-m", "evenspan"};
  words.insert(words.end(), t->words.begin(), t->words.end());
  const int code = run_program(words, /*quiet=*/false);
  if (code > kSignal) std::exit(code);
  if (code != 0) {
    fail(ErrorKind::resource, "[train] the text could not be made tokens by ", python,
         " -m evenspan tokenize, which ended with ", code, "; it says above why");
  }
}

}  // namespace evenspan::cli
