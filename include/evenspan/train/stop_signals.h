// Ctrl-C and SIGTERM end a training run between two steps, or two batches of an evaluation.
#pragma once

#include <string>

#include "evenspan/train/trainer.h"

namespace evenspan::train {

// From its construction to its destruction SIGINT, SIGTERM and SIGHUP, but for those that the process was started to
// ignore, do this:
// - before the run defers them (while files are read, when nothing is lost) they end the process at once;
// - then the first is what `stop().received` returns, and the run ends after the step or evaluation batch at work;
// - a second Ctrl-C, half a second or more later, ends the process at once.
// A process that a signal ends has the exit code 128 + its number and, if it `speaks`, says a line on standard error.
// Launchers may send SIGTERM twice, so the second says nothing new. REQUIRES: one lives at a time.
class StopSignals {
 public:
  explicit StopSignals(bool speaks);
  ~StopSignals();
  StopSignals(const StopSignals&) = delete;
  StopSignals& operator=(const StopSignals&) = delete;

  Stop stop() const;
};

// "SIGINT"; "signal 99" for one that StopSignals does not handle.
std::string signal_name(int signal);

}  // namespace evenspan::train
