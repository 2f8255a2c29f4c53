#include <algorithm>

#include "calibrate/parts.h"

namespace evenspan::calibrate {
namespace {

using plan::TileKind;
using simulate::Pass;

constexpr int64_t kTiny = 64;  // segments, or operations, of one pair
constexpr int64_t kMergedRows = 256, kMergedKeys = 16;
constexpr double kLeastSeconds = 1e-9;  // of a grid point, should its own part vanish beside a segment's

plan::Operation attend(const Workbench& workbench, Pass pass, TileKind kind, int64_t queries, int64_t keys,
                       int64_t count, Result result = Result::written) {
  return pass == Pass::forward ? workbench.attend(kind, queries, keys, count, result)
                               : workbench.attend_gradient(kind, queries, keys, count, result);
}

// Results that a segment merges: output, or the gradients of query, key and value; and their rows of one head.
double num_merged(Pass pass) { return pass == Pass::forward ? 1 : 3; }
double merged_rows(const plan::AttentionShape& shape, Pass pass) {
  const double query_rows = static_cast<double>(kMergedRows) * shape.num_heads;
  return pass == Pass::forward ? query_rows : query_rows + 2.0 * static_cast<double>(kMergedKeys) * shape.num_kv_heads;
}

}  // namespace

std::vector<int64_t> grid_points(const Grid& grid, int64_t longest, Steps steps) {
  std::vector<int64_t> points;
  const auto add = [&](int64_t point) {
    if (point < longest) points.push_back(point);
  };
  for (int64_t power = grid.first; power + grid.beyond < longest; power *= 2) {
    add(power + grid.beyond);
    if (steps == Steps::halves) add(power * 3 / 2 + grid.beyond);
  }
  points.push_back(longest);
  return points;
}

Grid grid_of(c10::Device device) { return device.is_cpu() ? Grid{8, 11, 1} : Grid{128, 0, 128}; }

AttentionPart::AttentionPart(const Workbench& workbench, const Grid& grid, int64_t longest, Bench* bench)
    : workbench_(workbench),
      tile_(grid.tile),
      points_(grid_points(grid, longest, Steps::doubles)),
      squares_(grid_points(grid, longest, Steps::halves)),
      forward_(add_tasks(Pass::forward, bench)),
      backward_(add_tasks(Pass::backward, bench)) {}

AttentionPart::PassTasks AttentionPart::add_tasks(Pass pass, Bench* bench) const {
  const auto add = [&](std::vector<plan::Operation> operations, int64_t times, bool warm) {
    plan::Phase program;
    program.operations = std::move(operations);
    return bench->add({[this, program] { workbench_.run(program); }, static_cast<double>(times), warm});
  };
  const auto segments = [&](TileKind kind, int64_t queries, int64_t keys, Result result = Result::written,
                            bool warm = false) {
    const int64_t count = std::clamp<int64_t>(1024 / std::max(queries, keys), 1, kTiny);
    return add({attend(workbench_, pass, kind, queries, keys, count, result)}, count, warm);
  };
  PassTasks tasks;
  tasks.operation = add(std::vector<plan::Operation>(kTiny, attend(workbench_, pass, TileKind::full, 1, 1, 1)), kTiny,
                        /*warm=*/false);
  tasks.segment = segments(TileKind::full, 1, 1);
  for (const int64_t queries : points_) {
    for (const int64_t keys : points_) tasks.grid.push_back(segments(TileKind::full, queries, keys));
  }
  for (const int64_t rows : squares_) tasks.squares.push_back(segments(TileKind::causal, rows, rows));
  // What a result is merged into was written by another tile of the same program.
  tasks.merged_pair = segments(TileKind::full, 1, 1, Result::merged, /*warm=*/true);
  tasks.merged = segments(TileKind::full, kMergedRows, kMergedKeys, Result::merged, /*warm=*/true);
  tasks.unmerged = segments(TileKind::full, kMergedRows, kMergedKeys, Result::written, /*warm=*/true);
  return tasks;
}

simulate::PassTimes AttentionPart::finish(const PassTasks& tasks, Pass pass, const Bench& bench) const {
  simulate::PassTimes times;
  // A program of one segment an operation, less one of as many segments in an operation.
  times.operation_seconds = std::max(0.0, bench.seconds(tasks.operation) - bench.seconds(tasks.segment));
  times.segment_seconds = bench.seconds(tasks.segment);
  const auto own_seconds = [&](size_t task) {
    const double seconds = bench.seconds(task) - times.segment_seconds;
    return std::max(seconds, kLeastSeconds) / workbench_.shape().num_heads;
  };
  for (const size_t task : tasks.grid) times.seconds.push_back(own_seconds(task));
  for (const size_t task : tasks.squares) times.square_seconds.push_back(own_seconds(task));
  times.merge_seconds = std::max(0.0, bench.seconds(tasks.merged_pair) - times.segment_seconds) / num_merged(pass);
  const double of_rows =
      bench.seconds(tasks.merged) - bench.seconds(tasks.unmerged) - num_merged(pass) * times.merge_seconds;
  times.merge_row_seconds = std::max(0.0, of_rows) / merged_rows(workbench_.shape(), pass);
  return times;
}

simulate::AttentionTimes AttentionPart::finish(const Bench& bench) const {
  simulate::AttentionTimes times;
  times.head_dim = workbench_.shape().head_dim;
  times.elements = {workbench_.shape().element};
  times.tile = tile_;
  times.queries = times.keys = points_;
  times.squares = squares_;
  times.forward = finish(forward_, Pass::forward, bench);
  times.backward = finish(backward_, Pass::backward, bench);
  return times;
}

}  // namespace evenspan::calibrate
