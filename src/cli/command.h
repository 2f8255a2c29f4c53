// What every program of Evenspan ends with, and the native commands of `evenspan`: each is a function of the arguments
// after its name.
#pragma once

#include <string>
#include <vector>

namespace evenspan::cli {

// What a program ends with; `python -m evenspan` ends with the same.
constexpr int kDone = 0;
constexpr int kRefused = 1;   // the command worked and its answer is no: a plan is not proven, runs differ
constexpr int kBadInput = 2;  // arguments, files, or what a machine or another rank refuses
constexpr int kBug = 3;       // of Evenspan
constexpr int kSignal = 128;  // + the number of the signal by which a command ended, as shells say it: 130, 143

// Arguments as words. Errors leave as exceptions; run() prints them.
using Arguments = std::vector<std::string>;

int plan_command(const Arguments& arguments);
int verify_command(const Arguments& arguments);
int simulate_command(const Arguments& arguments);
int explain_command(const Arguments& arguments);
int batch_command(const Arguments& arguments);
int strategies_command(const Arguments& arguments);
int completion_command(const Arguments& arguments);
int version_command(const Arguments& arguments);

// "evenspan 1.2.3".
void print_version();

// Calls the command and turns what it throws into one message on standard error and the exit code; `name` is what the
// message begins with ("evenspan plan"). Of --version alone, it prints the version. Output that could not be written to
// standard output is an error too.
int run(const std::string& name, int (*command)(const Arguments&), const Arguments& arguments);

}  // namespace evenspan::cli
