// The planner `auto` beside the exact optimum of small steps (tests/batch/oracle.h): a Markdown table on standard
// output, and the cases that are not shown to be within 1 % of it.
//
// Run: evenspan_batch_oracle_report [CASES [SECONDS]]
// Cases are of the seeds from 0 on, 1000 if nothing is said; the oracle may spend SECONDS, 60, on each. The solver is
// the package highsbox's of the interpreter that this was built with.
#include <algorithm>
#include <array>
#include <cstdio>
#include <cstdlib>
#include <string>

#include "../../tests/batch/oracle.h"
#include "evenspan/batch/planner.h"
#include "evenspan/core/error.h"
#include "evenspan/highs/highs.h"

namespace evenspan::batch {
namespace {

constexpr double kNear = 1.01;
constexpr std::array kKinds = {"uniform", "log-normal", "one long", "equal"};  // [Lengths]

struct Row {
  int64_t num_cases = 0, at_bound = 0, within = 0, worse = 0, undecided = 0;
  double most = 1;  // seconds over the optimum, of those that are worse

  void print(const char* name) const {
    const double shown = 100.0 * static_cast<double>(at_bound + within) / static_cast<double>(num_cases);
    std::printf("| %s | %lld | %lld | %lld | %lld | %lld | %.1f %% | %.3f |\n", name, static_cast<long long>(num_cases),
                static_cast<long long>(at_bound), static_cast<long long>(within), static_cast<long long>(worse),
                static_cast<long long>(undecided), shown, most);
  }
};

std::string describe(const OracleCase& of) {
  return join_text(of.lengths.size(), " documents, ", of.cost.num_ranks, " ranks in nodes of ", of.cost.ranks_per_node,
                   ", ", kKinds[static_cast<size_t>(of.kind)], " lengths");
}

void report(uint64_t num_cases, double most_seconds) {
  const std::unique_ptr<MilpSolver> solver = highs::open_solver({EVENSPAN_HIGHS});
  std::array<Row, kKinds.size() + 1> rows;  // the last one of all kinds
  int64_t num_programs = 0;
  std::string rest;
  for (uint64_t seed = 0; seed < num_cases; ++seed) {
    const OracleCase of = oracle_case(seed);
    const StepPlan plan =
        plan_step(find_planner("auto"), of.lengths, of.cost, {}, [&]() -> MilpSolver& { return *solver; }).plan;
    const double seconds = price(plan, of.lengths, of.cost).seconds;
    const bool is_at_bound = seconds <= kNear * lower_bound(of.lengths, of.cost).seconds;
    OracleAnswer answer{Verdict::within, 0, 0};
    if (!is_at_bound) answer = ask_oracle(of.lengths, of.cost, seconds / kNear, *solver, most_seconds);
    num_programs += answer.num_programs;
    for (Row* row : {&rows[static_cast<size_t>(of.kind)], &rows.back()}) {
      ++row->num_cases;
      if (answer.verdict == Verdict::worse) row->most = std::max(row->most, seconds / answer.seconds);
      ++(is_at_bound                         ? row->at_bound
         : answer.verdict == Verdict::within ? row->within
         : answer.verdict == Verdict::worse  ? row->worse
                                             : row->undecided);
    }
    if (answer.verdict != Verdict::within) {
      const bool is_worse = answer.verdict == Verdict::worse;
      char ratio[16];
      std::snprintf(ratio, sizeof(ratio), "%.3f", seconds / answer.seconds);
      rest += join_text("| ", seed, " | ", describe(of), " | ", is_worse ? "" : "at most ", ratio, " |\n");
    }
  }
  std::printf("| lengths | cases | within 1 %% of the bound | of the optimum | worse | undecided | shown | worst |\n");
  std::printf("|---|---|---|---|---|---|---|---|\n");
  for (size_t kind = 0; kind < kKinds.size(); ++kind) rows[kind].print(kKinds[kind]);
  rows.back().print("all");
  std::printf("\n%lld programs were solved.\n", static_cast<long long>(num_programs));
  std::printf("\n| seed | not shown | of the optimum |\n|---|---|---|\n%s", rest.c_str());
}

}  // namespace
}  // namespace evenspan::batch

int main(int argc, char** argv) {
  try {
    evenspan::batch::report(argc > 1 ? std::strtoull(argv[1], nullptr, 10) : 1000,
                            argc > 2 ? std::strtod(argv[2], nullptr) : 60);
  } catch (const evenspan::Error& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
}
