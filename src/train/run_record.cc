#include "train/run_record.h"

#include <algorithm>
#include <filesystem>
#include <functional>
#include <limits>
#include <string_view>

#include "evenspan/core/error.h"
#include "evenspan/train/checkpoint_files.h"
#include "files/input_file.h"
#include "files/json.h"
#include "files/json_fields.h"
#include "files/lines.h"

namespace evenspan::train {
namespace {

namespace fs = std::filesystem;
using files::Fields;
using Json = nlohmann::json;

constexpr int64_t kMostCount = int64_t{1} << 53;
constexpr int64_t kMostRanks = int64_t{1} << 20;
constexpr double kMostSeconds = 1e12;
constexpr double kMostRatio = 1e9;  // of losses too, which are logarithms

// Calls `use` for each line that is not blank, with its text and "PATH:NUMBER".
void for_each_line(const std::string& path, const std::function<void(std::string_view, const std::string&)>& use) {
  const files::InputFile file(path, "metrics");
  files::Lines lines(file);
  for (std::string_view line; lines.next(&line);) {
    if (line.find_first_not_of(" \t\r") != line.npos) use(line, lines.where());
  }
}

// Fields of one line whose sizes must fit to the number of ranks.
class StepReader {
 public:
  StepReader(const Json& json, const Fields& in, int32_t num_ranks) : json_(json), in_(in), num_ranks_(num_ranks) {}

  RunRecord::Step read() const {
    RunRecord::Step s;
    s.step = in_.whole_between("step", 1, kMostCount);
    s.tokens = in_.whole_between("tokens", 0, kMostCount);
    s.documents = in_.whole_between("documents", 0, kMostCount);
    if (in_.has("micro_batches")) s.micro_batches = in_.whole_between("micro_batches", 1, kMostCount);
    if (in_.has("modelled_seconds")) s.modelled_seconds = in_.number_between("modelled_seconds", 0, kMostSeconds);
    s.loss = in_.number_between("loss", 0, kMostRatio);
    s.seconds = in_.number_between("seconds", 0, kMostSeconds);
    s.work_max_over_mean = in_.number_between("work_max_over_mean", 0, kMostRatio);
    s.tokens_max_over_mean = in_.number_between("tokens_max_over_mean", 0, kMostRatio);
    s.rank_tokens = counts("rank_tokens");
    s.rank_work = in_.numbers("rank_work_seconds");
    require_size("rank_work_seconds", s.rank_work.size());
    for (const double seconds : s.rank_work) {
      if (!(seconds >= 0 && seconds <= kMostSeconds)) {
        in_.refuse("rank_work_seconds", join_text("each is from 0 to ", kMostSeconds));
      }
    }
    s.attention_bytes = matrix("attention_sent_bytes");
    s.optimizer_bytes = matrix("optimizer_sent_bytes");
    s.forward_bytes = in_.whole_between("forward_sent_bytes", 0, kMostCount);
    s.ring_bytes = in_.whole_between("ring_forward_sent_bytes", 0, kMostCount);
    if (in_.has("lengths") != in_.has("placement")) {
      in_.refuse(in_.has("lengths") ? "placement" : "lengths", "lengths and placement are recorded together");
    }
    if (in_.has("placement")) read_placement(&s);
    return s;
  }

 private:
  void require_size(const std::string& key, size_t size) const {
    if (size == static_cast<size_t>(num_ranks_)) return;
    in_.refuse(key, join_text("it has ", size, " entries, and there are ", num_ranks_,
                              " ranks; give the metrics as the run wrote them"));
  }

  std::vector<int64_t> counts(const std::string& key) const {
    const std::vector<int64_t> values = in_.wholes(key);
    require_size(key, values.size());
    for (const int64_t value : values) check(key, value);
    return values;
  }
  void check(const std::string& key, int64_t value) const {
    if (value < 0 || value > kMostCount) in_.refuse(key, join_text("each number is from 0 to ", kMostCount));
  }

  std::vector<std::vector<int64_t>> matrix(const std::string& key) const {
    std::vector<std::vector<int64_t>> rows = in_.whole_rows(key);
    require_size(key, rows.size());
    for (const auto& row : rows) {
      require_size(key, row.size());
      for (const int64_t value : row) check(key, value);
    }
    return rows;
  }

  // [rank][span] = document, begin, end; spans lie in their documents.
  void read_placement(RunRecord::Step* s) const {
    s->lengths = in_.wholes("lengths");
    for (const int64_t length : s->lengths) check("lengths", length);
    const auto refuse = [this] { in_.refuse("placement", "it is a list of [document, begin, end] for each rank"); };
    const Json& ranks = json_.at("placement");
    if (!ranks.is_array()) refuse();
    require_size("placement", ranks.size());
    for (const Json& rank : ranks) {
      if (!rank.is_array()) refuse();
      const Json own = {{"placement", rank}};
      s->placement.push_back(Fields(own, "metrics", in_.file()).whole_rows("placement"));
      for (const std::vector<int64_t>& span : s->placement.back()) {
        if (span.size() != 3) refuse();
        if (span[0] < 0 || span[0] >= static_cast<int64_t>(s->lengths.size()) || span[1] < 0 || span[1] >= span[2] ||
            span[2] > s->lengths[static_cast<size_t>(span[0])]) {
          in_.refuse("placement", join_text("document ", span[0], ", tokens ", span[1], " to ", span[2],
                                            ", is not in the ", s->lengths.size(), " documents of lengths"));
        }
      }
    }
  }

  const Json& json_;
  const Fields& in_;
  int32_t num_ranks_;
};

void read_header(const Fields& in, RunRecord* run) {
  run->num_ranks = static_cast<int32_t>(in.whole_between("ranks", 1, kMostRanks));
  if (in.has("replicas")) run->num_replicas = static_cast<int32_t>(in.whole_between("replicas", 1, run->num_ranks));
  run->strategy = in.text("strategy");
  run->dtype = in.text("dtype");
  run->num_parameters = in.whole_between("parameters", 1, kMostCount);
  run->num_layers = in.whole_between("layers", 1, kMostCount);
}

double sum(const std::vector<std::vector<int64_t>>& rows) {
  double sum = 0;
  for (const auto& row : rows) {
    for (const int64_t value : row) sum += static_cast<double>(value);
  }
  return sum;
}

}  // namespace

KeptLines lines_until(const std::string& path, int64_t step) {
  std::error_code error;
  KeptLines kept;
  if (!fs::exists(path, error)) return kept;
  std::string torn;   // what is wrong with the line before
  int64_t last = -1;  // step that is kept
  for_each_line(path, [&](std::string_view line, const std::string& where) {
    if (!torn.empty()) fail_invalid(torn, "; move the file away to go on without it");
    bool is_step = false, is_evaluation = false;
    int64_t number = 0;
    try {
      const Json json = files::parse_json(line, "metrics", where);
      const Fields in(json, "metrics", where);
      is_evaluation = in.has("evaluation");
      is_step = in.has("step") && !is_evaluation;
      if (in.has("step")) number = in.whole("step");
      if (in.has("final") || number > step) return;
    } catch (const Error& problem) {
      torn = problem.what();
      return;
    }
    if (is_step && last >= 0 && number != last + 1) {
      fail_invalid("[metrics] ", where, " is of step ", number, " and the step before it of ", last,
                   "; the steps of a run follow each other, move the file away to go on without it");
    }
    if (is_step) last = number;
    kept.has_evaluation |= is_evaluation && number == step;
    kept.text.append(line).push_back('\n');
  });
  if (last >= 0 && last != step) {
    fail_invalid("[metrics] ", path, " ends with step ", last, " and the checkpoint is of step ", step,
                 "; give the run.folder that the checkpoint is of, or move the file away to go on without it");
  }
  kept.has_step = last == step;
  return kept;
}

MicroBatchTotals micro_batch_totals(const RunRecord& run) {
  MicroBatchTotals totals;
  for (const RunRecord::Step& step : run.steps) {
    totals.mean += static_cast<double>(step.micro_batches) / static_cast<double>(run.steps.size());
    totals.most = std::max(totals.most, step.micro_batches);
    totals.seconds += step.modelled_seconds > 0 ? step.seconds : 0;
    totals.modelled_seconds += step.modelled_seconds;
  }
  return totals;
}

RunRecord read_run(const std::string& folder) {
  const fs::path path = fs::path(folder) / "metrics.jsonl";
  std::error_code error;
  if (!fs::exists(path, error)) {
    fail(ErrorKind::resource, "[compare] there is no ", path.string(), "; ", folder,
         " must be the run.folder of a finished run");
  }
  RunRecord run;
  run.folder = folder;
  run.held_out_loss = std::numeric_limits<double>::quiet_NaN();
  bool finished = false;
  double bytes = 0;
  for_each_line(path.string(), [&](std::string_view line, const std::string& where) {
    const Json json = files::parse_json(line, "metrics", where);
    const Fields in(json, "metrics", where);
    if (in.has("run")) {
      read_header(in.object("run"), &run);
    } else if (in.has("final")) {
      finished = true;
      run.seconds = in.number_between("seconds", 0, kMostSeconds);
      run.checkpoint = in.text("checkpoint");
      if (in.has("held_out_loss")) run.held_out_loss = in.number_between("held_out_loss", 0, kMostRatio);
    } else if (!in.has("evaluation")) {
      RunRecord::Step step = StepReader(json, in, run.num_ranks).read();
      if (!run.steps.empty() && step.step <= run.steps.back().step) {
        in.refuse("step", join_text("it comes after ", run.steps.back().step, "; steps ascend"));
      }
      bytes += sum(step.attention_bytes) + sum(step.optimizer_bytes) + static_cast<double>(step.tokens);
      run.steps.push_back(std::move(step));
    }
  });
  if (!finished || run.steps.empty()) {
    fail_invalid("[compare] ", path.string(), " must be of a finished run with at least one step, it has ",
                 run.steps.size(), finished ? " steps" : " steps and no end");
  }
  for (const RunRecord::Step& step : run.steps) {
    if (static_cast<int32_t>(step.rank_tokens.size()) != run.num_ranks) {
      fail_invalid("[compare] ", folder, " must have run on one number of ranks; step ", step.step, " ran on ",
                   step.rank_tokens.size(), " and the last on ", run.num_ranks);
    }
  }
  if (bytes > 4e18) {
    fail_invalid("[compare] ", path.string(), " has ", bytes, " bytes and tokens in all, more than can be counted");
  }
  // The folder may have moved since it was written.
  const std::string latest = latest_checkpoint((fs::path(folder) / "checkpoints").string());
  if (!latest.empty()) run.checkpoint = latest;
  return run;
}

}  // namespace evenspan::train
