// The configuration of a training run: a TOML file with the sections data, model, optimizer, parallel and run, every
// key of which can be overridden on the command line.
#pragma once

#include <cstdint>
#include <limits>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "evenspan/machine/micro_batches.h"
#include "evenspan/plan/request.h"

namespace evenspan::train {

// As data.tokenizer: a token per byte, and one that ends a document.
constexpr const char* kBytes = "bytes";

// The meaning of every field, with its unit and range, stands in the table of keys (config.cc), which `--help` prints.
struct DataConfig {
  std::string path;
  std::string format = "auto";
  std::string tokenizer;
  std::vector<std::string> suffixes;
  std::vector<std::string> exclude;
  bool skip_invalid = false;
  int64_t max_document_tokens = 8192;
  int64_t batch_tokens = 32768;
  double held_out_fraction = 0.0;
  int64_t seed = 0;
  int64_t pack_order = 0;
};

struct ModelSection {
  std::string config;
  std::string weights;
  std::string dtype = "float32";
  int64_t seed = 0;
};

struct OptimizerConfig {
  double learning_rate = 3e-4;
  double min_learning_rate = 0.0;
  int64_t warmup_steps = 0;
  int64_t decay_steps = 0;
  double beta1 = 0.9;
  double beta2 = 0.95;
  double epsilon = 1e-8;
  double weight_decay = 0.1;
  double clip_norm = 1.0;
};

struct ParallelConfig {
  std::string strategy = plan::kDefaultStrategy;
  std::string profile;
  std::string topology;
  int64_t replicas = 1;
  int64_t ranks_per_node = 0;
  int64_t ranks_per_group = 0;
  double token_slack = 0.1;
  int64_t micro_batch_tokens = 0;
  int64_t memory_budget = 0;
  std::string batch_planner = "auto";
  std::string transport = "all_gather";
  int64_t threads_per_rank = 0;
};

struct RunConfig {
  int64_t steps = 100;
  std::string folder;
  std::string resume;
  int64_t checkpoint_interval = 0;
  int64_t keep_checkpoints = 2;
  int64_t eval_interval = 0;
  int64_t eval_batches = 8;
  int64_t log_interval = 10;
  bool record_placement = false;
};

struct Config {
  DataConfig data;
  ModelSection model;
  OptimizerConfig optimizer;
  ParallelConfig parallel;
  RunConfig run;
};

using KeyValue = std::variant<bool*, int64_t*, double*, std::string*, std::vector<std::string>*>;

// One key, bound to its field in a config.
struct Key {
  std::string name;  // "data.batch_tokens"
  KeyValue value;
  std::string meaning;
  double least = -std::numeric_limits<double>::infinity();    // of numbers
  double greatest = std::numeric_limits<double>::infinity();  // of numbers
  std::vector<std::string> choices;                           // of texts; empty: any
  bool is_bytes = false;  // of integers, that may be texts with a unit, such as "80GiB"
  bool is_type = false;   // of elements, in any of their spellings; read as one of the choices
  bool is_path = false;   // relative to the config file, or to the working folder on the command line
};

// The one table of keys. REQUIRES: `config` outlives the result.
std::vector<Key> bind_keys(Config& config);

// (key, value as text) of the command line.
using Overrides = std::vector<std::pair<std::string, std::string>>;

// Reads a TOML file and then the overrides. Throws invalid_argument for malformed TOML, an unknown key or section (with
// the nearest name), a value of another type or outside its range, or values that contradict each other.
Config load_config(const std::string& path, const Overrides& overrides);
// The same from text; relative paths in it start at `folder`.
Config parse_config(const std::string& text, const std::string& source, const std::string& folder,
                    const Overrides& overrides);

// What a micro-batch may hold.
machine::MicroBatchLimits micro_batch_limits(const ParallelConfig& config);

// Throws invalid_argument for the first rule that the values break.
void validate(const Config& config);

// The complete configuration as TOML; load_config reads the same values back.
std::string to_toml(const Config& config);

// A line or two for every key: name, type, default, meaning.
std::string describe_keys();
// What `train --help` says below the command itself: the file, the data, how a run is stopped, exit codes, all keys.
std::string describe_training();

}  // namespace evenspan::train
