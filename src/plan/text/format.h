// What the two halves of the text form share.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "evenspan/plan/text.h"
#include "plan/text/scanner.h"

namespace evenspan::plan {

// In the first line of every text. Any change of the form takes the next number; other versions are refused.
constexpr int64_t kTextVersion = 4;

// Where the operations of a parsed text stand: [rank][phase kind][operation] gives the line, counted from 1.
struct ProgramLines {
  std::vector<std::array<std::vector<int64_t>, kNumPhaseKinds>> ranks;

  // 0 when there is no such operation.
  int64_t of(int32_t rank, PhaseKind phase, int32_t operation) const;
};

// parse() of a text that comes line by line, and the lines of the operations for messages about them.
LoweredPlan parse(NextLine next, ProgramLines* lines);
NextLine lines_of(const std::string& text);  // the text outlives it

}  // namespace evenspan::plan
