// Mixed-integer linear programs, and who solves them: passed in, so that this layer needs no solver.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

namespace evenspan::batch {

// Least cost of columns within their bounds, rows within theirs. Infinite bounds are +-infinity.
struct Milp {
  struct Column {
    double cost = 0, lower = 0, upper = 0;
    bool is_integer = false;
  };
  struct Entry {
    int32_t column = 0;
    double value = 0;
  };
  struct Row {
    double lower = 0, upper = 0;
    std::vector<Entry> entries;  // of different columns
  };
  std::vector<Column> columns;
  std::vector<Row> rows;
};

struct MilpSolution {
  std::optional<std::vector<double>> values;  // [column], of the best point found; nothing: none was found
  double bound = 0;                           // no point costs less; infinite: there is no point
  bool is_optimal = false;                    // within the solver's gap
};

class MilpSolver {
 public:
  virtual ~MilpSolver() = default;
  // `start` is a point to begin with; empty: none. Stops after `most_seconds` of time. Throws resource when the solver
  // cannot be used.
  virtual MilpSolution solve(const Milp& milp, const std::vector<double>& start, double most_seconds) = 0;
};

}  // namespace evenspan::batch
