#include "train/resume_notes.h"

#include <algorithm>
#include <set>

#include "evenspan/core/error.h"
#include "evenspan/train/optimizer.h"
#include "train/config_text.h"
#include "train/console.h"

namespace evenspan::train {
namespace {

const std::set<std::string> kSchedule = {"optimizer.learning_rate", "optimizer.min_learning_rate",
                                         "optimizer.warmup_steps", "optimizer.decay_steps", "run.steps"};

// What is added up in another order.
const std::set<std::string> kMicroBatches = {"parallel.replicas", "parallel.micro_batch_tokens",
                                             "parallel.memory_budget", "parallel.batch_planner"};

bool is_mathematics(const Key& key) {
  return !key.is_path &&
         (key.name.starts_with("data.") || key.name.starts_with("model.") || key.name.starts_with("optimizer."));
}

// The first step from `first_step` on that has another learning rate; 0 if none.
int64_t first_other_rate(const Config& now, const Config& before, int64_t first_step) {
  const auto horizon = [](const Config& c) {  // from which on the rate is constant
    return std::max(c.optimizer.warmup_steps, c.optimizer.decay_steps > 0 ? c.optimizer.decay_steps : c.run.steps);
  };
  const int64_t last = std::min(now.run.steps, std::max(horizon(now), horizon(before)));
  for (int64_t step = first_step; step <= last; ++step) {
    if (learning_rate_at(now.optimizer, step, now.run.steps) !=
        learning_rate_at(before.optimizer, step, before.run.steps)) {
      return step;
    }
  }
  return 0;
}

}  // namespace

std::vector<std::string> resume_notes(const Config& now, const std::string& before_text, int64_t first_step) {
  Config before, current = now;
  try {
    before = parse_config(before_text, "the checkpoint's configuration", "/", {});
  } catch (const Error& e) {
    return {join_text("whether settings differ from those of the checkpoint is unknown: ", e.what())};
  }
  std::vector<std::string> notes;
  std::string schedule, others;
  const std::vector<Key> keys = bind_keys(current), old_keys = bind_keys(before);
  for (size_t i = 0; i < keys.size(); ++i) {
    const std::string was = value_text(old_keys[i]), is = value_text(keys[i]);
    if (was == is) continue;
    const std::string change = keys[i].name + " was " + was + " and is " + is;
    if (kSchedule.contains(keys[i].name)) {
      schedule += (schedule.empty() ? "" : ", ") + change;
    } else if (is_mathematics(keys[i]) || kMicroBatches.contains(keys[i].name)) {
      others += (others.empty() ? "" : ", ") + change;
    }
  }
  if (!schedule.empty()) {
    const int64_t other = first_other_rate(now, before, first_step);
    if (other == 0) {
      notes.push_back(schedule + "; every step that is left keeps the learning rate that it had");
    } else {
      notes.push_back(join_text(schedule, "; the learning rate now goes ", schedule_text(now.optimizer, now.run.steps),
                                ", and went ", schedule_text(before.optimizer, before.run.steps), ": step ", other,
                                " takes ", learning_rate_at(now.optimizer, other, now.run.steps), " instead of ",
                                learning_rate_at(before.optimizer, other, before.run.steps)));
      const bool stretched = now.optimizer.decay_steps == 0 && before.optimizer.decay_steps == 0;
      if (stretched) notes.back() += join_text("; optimizer.decay_steps = ", before.run.steps, " keeps the old end");
    }
  }
  if (!others.empty()) notes.push_back("other settings than the checkpoint's: " + others);
  return notes;
}

}  // namespace evenspan::train
