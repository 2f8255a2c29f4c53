#include "evenspan/train/stop_signals.h"

#include <unistd.h>

#include <array>
#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <ctime>

#include "evenspan/core/error.h"

namespace evenspan::train {
namespace {

struct Handled {
  int signal;
  const char* name;
};
constexpr std::array<Handled, 3> kHandled = {{{SIGINT, "SIGINT"}, {SIGTERM, "SIGTERM"}, {SIGHUP, "SIGHUP"}}};
constexpr double kSecondSeconds = 0.5;  // what comes sooner is the first again, passed on by a launcher

// What a handler may touch: there is one of each signal in a process.
std::atomic<bool> speaks_now{false};
std::atomic<bool> deferred{false};
std::atomic<int> first_signal{0};
std::atomic<double> first_seconds{0};
static_assert(std::atomic<double>::is_always_lock_free);
std::array<struct sigaction, kHandled.size()> before;

double now_seconds() {
  timespec time{};
  clock_gettime(CLOCK_MONOTONIC, &time);
  return static_cast<double>(time.tv_sec) + 1e-9 * static_cast<double>(time.tv_nsec);
}

// Only functions that a handler may call.
void say(const char* name, const char* text) {
  if (!speaks_now) return;
  for (const char* part : {"evenspan train: ", name, text}) {
    if (write(STDERR_FILENO, part, std::strlen(part)) < 0) return;
  }
}

const char* name_of(int signal) {
  for (const Handled& handled : kHandled) {
    if (handled.signal == signal) return handled.name;
  }
  return nullptr;
}

extern "C" void handle_stop(int signal) {
  const int saved = errno;
  const char* name = name_of(signal);
  int none = 0;
  if (!deferred) {
    say(name, " before the first step; nothing was trained and nothing is lost\n");
    _exit(128 + signal);
  }
  if (first_signal.compare_exchange_strong(none, signal)) {
    first_seconds = now_seconds();
    say(name, ": the run ends after the step or evaluation batch at work; a second Ctrl-C ends it at once\n");
  } else if (signal == SIGINT && now_seconds() - first_seconds >= kSecondSeconds) {
    say(name, " again: ended at once, without the step at work; the checkpoints written before are whole\n");
    _exit(128 + signal);
  }
  errno = saved;
}

}  // namespace

StopSignals::StopSignals(bool speaks) {
  speaks_now = speaks;
  deferred = false;
  first_signal = 0;
  for (size_t i = 0; i < kHandled.size(); ++i) {
    struct sigaction action {};
    action.sa_handler = handle_stop;
    action.sa_flags = SA_RESTART;
    sigaction(kHandled[i].signal, nullptr, &before[i]);
    if (before[i].sa_handler != SIG_IGN) sigaction(kHandled[i].signal, &action, nullptr);
  }
}

StopSignals::~StopSignals() {
  for (size_t i = 0; i < kHandled.size(); ++i) sigaction(kHandled[i].signal, &before[i], nullptr);
}

Stop StopSignals::stop() const {
  return {[] { deferred = true; }, [] { return first_signal.load(); }};
}

std::string signal_name(int signal) {
  const char* name = name_of(signal);
  return name != nullptr ? name : join_text("signal ", signal);
}

}  // namespace evenspan::train
