// The table of configuration keys.
#include <sstream>

#include "evenspan/train/config.h"
#include "train/config_text.h"

namespace evenspan::train {

std::vector<Key> bind_keys(Config& c) {
  constexpr double kMany = 1e15;
  std::vector<Key> keys;
  const auto add = [&](std::string name, KeyValue value, std::string meaning) -> Key& {
    return keys.emplace_back(
        Key{.name = std::move(name), .value = value, .meaning = std::move(meaning), .choices = {}});
  };
  const auto number = [&](std::string name, KeyValue value, double least, double greatest, std::string meaning) {
    Key& key = add(std::move(name), value, std::move(meaning));
    key.least = least;
    key.greatest = greatest;
  };
  const auto choice = [&](std::string name, std::string* value, std::vector<std::string> choices, std::string meaning) {
    add(std::move(name), value, std::move(meaning)).choices = std::move(choices);
  };
  const auto path = [&](std::string name, std::string* value, std::string meaning) {
    add(std::move(name), value, std::move(meaning)).is_path = true;
  };

  path("data.path", &c.data.path,
       "a folder of text files, a JSONL file, or a Megatron .bin/.idx pair (its prefix); required");
  choice("data.format", &c.data.format, {"auto", "text", "jsonl", "megatron"},
         "what data.path is; auto: a folder is text, .jsonl is jsonl, .bin, .idx or a prefix of both is megatron");
  path(
      "data.tokenizer", &c.data.tokenizer,
      "of text and JSONL: a folder with a Hugging Face tokenizer, which makes the text tokens in run.folder before the "
      "run; \"bytes\": a token per byte; empty: the tokenizer beside the model's weights or configuration, or bytes "
      "for a model that starts from initial values and has none");
  add("data.suffixes", &c.data.suffixes,
      "text: only files with one of these endings, such as \".py\"; empty: all files");
  add("data.exclude", &c.data.exclude, "text: names of files and folders to leave out, wherever they stand");
  add("data.skip_invalid", &c.data.skip_invalid,
      "text: leave out and count files that are not UTF-8, instead of refusing them");
  number("data.max_document_tokens", &c.data.max_document_tokens, 1, kMany,
         "longer documents continue as new documents");
  number("data.batch_tokens", &c.data.batch_tokens, 1, kMany,
         "most tokens of a batch, over all ranks: of the documents of an optimiser step, in all its micro-batches; the "
         "document that does not fit opens the next batch");
  number("data.held_out_fraction", &c.data.held_out_fraction, 0, 0.9, "share of the documents kept for evaluation");
  number("data.seed", &c.data.seed, 0, kMany, "order of the documents, choice of the held-out ones");
  number("data.pack_order", &c.data.pack_order, 0, kMany,
         "other values pack the same batches in other orders (same mathematics, other rounding)");

  path("model.config", &c.model.config, "Hugging Face config.json, or a folder that holds one; required");
  path("model.weights", &c.model.weights, "Hugging Face folder with the weights to start from; empty: initial values");
  choice("model.dtype", &c.model.dtype, {"float32", "bfloat16", "float64"},
         "type of the computation, also as f32, bf16, f64; the optimiser keeps float32 (float64 for float64)");
  keys.back().is_type = true;
  number("model.seed", &c.model.seed, 0, kMany, "of the initial values");

  number("optimizer.learning_rate", &c.optimizer.learning_rate, 0, 1e3, "greatest rate of AdamW");
  number("optimizer.min_learning_rate", &c.optimizer.min_learning_rate, 0, 1e3, "rate at the end of the cosine");
  number("optimizer.warmup_steps", &c.optimizer.warmup_steps, 0, kMany, "steps of the linear warm-up");
  number("optimizer.decay_steps", &c.optimizer.decay_steps, 0, kMany, "step at which the cosine ends; 0: run.steps");
  number("optimizer.beta1", &c.optimizer.beta1, 0, 0.999999999, "decay of the first moment");
  number("optimizer.beta2", &c.optimizer.beta2, 0, 0.999999999, "decay of the second moment");
  number("optimizer.epsilon", &c.optimizer.epsilon, 1e-300, 1, "added to the root of the second moment");
  number("optimizer.weight_decay", &c.optimizer.weight_decay, 0, 1e3,
         "decoupled, of matrices; norms and biases never decay");
  number("optimizer.clip_norm", &c.optimizer.clip_norm, 0, kMany,
         "greatest global norm of the gradients; 0: no clipping");

  add("parallel.strategy", &c.parallel.strategy,
      "how a batch is planned: a name of `evenspan plan --help`; auto: the plan whose step is simulated shortest");
  path("parallel.profile", &c.parallel.profile,
       "the machine's profile, a shipped name or a JSON file, by which work is weighed, auto chooses and batches are "
       "cut; empty: work is counted in operations, and auto takes h100-sxm and says so");
  path("parallel.topology", &c.parallel.topology,
       "the machine's nodes and links as a JSON file, instead of ranks_per_node; needs a profile or auto");
  number("parallel.replicas", &c.parallel.replicas, 1, 1e6,
         "groups of adjacent ranks, as many in each, that divide a step's documents and cut their parts into "
         "micro-batches of their own; gradients are summed over all ranks once a step");
  number("parallel.ranks_per_node", &c.parallel.ranks_per_node, 0, 1e6, "ranks that share a fast link; 0: all of them");
  number("parallel.ranks_per_group", &c.parallel.ranks_per_group, 0, 1e6,
         "mixed, hierarchical, usp: ranks that split heads; 0: as many as divide the ranks of a replica and share a "
         "node");
  number("parallel.token_slack", &c.parallel.token_slack, 0, 1e6,
         "tokens of a rank stay below (1 + this) x the mean where possible");
  number("parallel.micro_batch_tokens", &c.parallel.micro_batch_tokens, 0, kMany,
         "most tokens of a micro-batch, over all ranks of a replica; a batch is cut into such, whose gradients are "
         "added; 0: no such limit");
  number("parallel.memory_budget", &c.parallel.memory_budget, 0, kMany,
         "bytes of a rank for the model's states and the activations of a micro-batch, such as \"80GiB\", by which a "
         "batch is cut too; 0: no limit");
  keys.back().is_bytes = true;
  add("parallel.batch_planner", &c.parallel.batch_planner,
      "who cuts batches into micro-batches: a planner of `evenspan batch --help` that needs no solver");
  add("parallel.transport", &c.parallel.transport,
      "how states of linear layers travel: ring, all_gather, pipelined, logarithmic, two_level");
  number("parallel.threads_per_rank", &c.parallel.threads_per_rank, 0, 4096,
         "threads of one rank's operators; 0: cores / ranks, at least 1. Another number rounds differently");

  number("run.steps", &c.run.steps, 1, kMany, "optimiser steps in all, those before a resume included");
  path("run.folder", &c.run.folder, "metrics.jsonl, config.toml and checkpoints go here; empty: nothing is written");
  path("run.resume", &c.run.resume,
       "checkpoint to go on from; \"latest\": the newest of run.folder, or the beginning if there is none");
  number("run.checkpoint_interval", &c.run.checkpoint_interval, 0, kMany,
         "steps between checkpoints; 0: only the last step. Needs run.folder");
  number("run.keep_checkpoints", &c.run.keep_checkpoints, 0, kMany, "older checkpoints are removed; 0: keep all");
  number("run.eval_interval", &c.run.eval_interval, 0, kMany, "steps between evaluations; 0: only after the last step");
  number("run.eval_batches", &c.run.eval_batches, 1, kMany, "most batches of an evaluation");
  number("run.log_interval", &c.run.log_interval, 1, kMany,
         "steps between lines on the console; the first and the last step have one. metrics.jsonl has every step");
  add("run.record_placement", &c.run.record_placement, "write every batch's placement into metrics.jsonl");
  return keys;
}

std::string describe_keys() {
  Config defaults;
  std::ostringstream out;
  std::string section;
  for (const Key& key : bind_keys(defaults)) {
    const std::string here = key.name.substr(0, key.name.find('.'));
    if (here != section) out << (section.empty() ? "" : "\n") << "  [" << here << "]\n";
    section = here;
    const std::string head = "  --" + key.name + " " + type_name(key);
    out << head << std::string(head.size() < 46 ? 46 - head.size() : 1, ' ') << "default " << value_text(key) << "\n"
        << "      " << key.meaning << "\n";
    if (!key.choices.empty()) {
      out << "      one of";
      for (const std::string& choice : key.choices) out << " " << choice;
      out << "\n";
    }
  }
  return out.str();
}

std::string to_toml(const Config& config) {
  Config copy = config;
  std::ostringstream out;
  std::string section;
  for (const Key& key : bind_keys(copy)) {
    const size_t dot = key.name.find('.');
    const std::string here = key.name.substr(0, dot);
    if (here != section) out << (section.empty() ? "" : "\n") << "[" << here << "]\n";
    section = here;
    out << key.name.substr(dot + 1) << " = " << value_text(key) << "\n";
  }
  return out.str();
}

}  // namespace evenspan::train
