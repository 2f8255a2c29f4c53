#include "evenspan/train/report.h"

#include <ATen/TensorOperators.h>
#include <nlohmann/json.hpp>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <limits>

#include "evenspan/core/error.h"
#include "evenspan/nn/model_config.h"
#include "evenspan/nn/safetensors.h"
#include "evenspan/train/checkpoint.h"
#include "train/metrics.h"

namespace evenspan::train {
namespace {

namespace fs = std::filesystem;
using Json = nlohmann::json;

RunRecord::Step read_step(const Json& json) {
  RunRecord::Step s;
  json.at("step").get_to(s.step);
  json.at("tokens").get_to(s.tokens);
  json.at("documents").get_to(s.documents);
  json.at("loss").get_to(s.loss);
  json.at("seconds").get_to(s.seconds);
  json.at("work_max_over_mean").get_to(s.work_max_over_mean);
  json.at("tokens_max_over_mean").get_to(s.tokens_max_over_mean);
  json.at("rank_tokens").get_to(s.rank_tokens);
  json.at("rank_work_seconds").get_to(s.rank_work);
  json.at("attention_sent_bytes").get_to(s.attention_bytes);
  json.at("optimizer_sent_bytes").get_to(s.optimizer_bytes);
  json.at("forward_sent_bytes").get_to(s.forward_bytes);
  json.at("ring_forward_sent_bytes").get_to(s.ring_bytes);
  if (json.contains("lengths")) json.at("lengths").get_to(s.lengths);
  if (json.contains("placement")) json.at("placement").get_to(s.placement);
  return s;
}

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  const size_t half = values.size() / 2;
  return values.size() % 2 == 1 ? values[half] : (values[half - 1] + values[half]) / 2;
}

// printf into a string.
template <class... Values>
std::string text(const char* format, Values... values) {
  char buffer[256];
  std::snprintf(buffer, sizeof buffer, format, values...);
  return buffer;
}

// Beside what `ring` would have sent: bytes of one forward of all layers, over all steps.
std::string ring_line(const RunRecord& run) {
  double sent = 0;
  double ring = 0;
  for (const RunRecord::Step& s : run.steps) {
    sent += static_cast<double>(s.forward_bytes);
    ring += static_cast<double>(s.ring_bytes);
  }
  return text("forward bytes of attention, all steps: %s %s, ring would have sent %s (%.1f %%)\n", run.strategy.c_str(),
              bytes_text(sent).c_str(), bytes_text(ring).c_str(), ring > 0 ? 100 * sent / ring : 0.0);
}

}  // namespace

RunRecord read_run(const std::string& folder) {
  const fs::path path = fs::path(folder) / "metrics.jsonl";
  std::ifstream in(path);
  if (!in)
    fail(ErrorKind::resource, "[compare] cannot read ", path.string(), "; ", folder,
         " must be the run.folder of a finished run");
  RunRecord run;
  run.folder = folder;
  run.held_out_loss = std::numeric_limits<double>::quiet_NaN();
  bool finished = false;
  int64_t number = 0;
  for (std::string line; std::getline(in, line);) {
    ++number;
    try {
      const Json json = Json::parse(line);
      if (json.contains("run")) {
        const Json& header = json.at("run");
        header.at("ranks").get_to(run.num_ranks);
        header.at("strategy").get_to(run.strategy);
        header.at("dtype").get_to(run.dtype);
        header.at("parameters").get_to(run.num_parameters);
        header.at("layers").get_to(run.num_layers);
      } else if (json.contains("final")) {
        finished = true;
        json.at("seconds").get_to(run.seconds);
        json.at("checkpoint").get_to(run.checkpoint);
        if (json.at("held_out_loss").is_number()) json.at("held_out_loss").get_to(run.held_out_loss);
      } else if (json.contains("loss")) {
        run.steps.push_back(read_step(json));
      }
    } catch (const Json::exception& e) {
      fail_invalid("[compare] ", path.string(), ":", number, " is not a line of metrics: ", e.what());
    }
  }
  if (!finished || run.steps.empty() || run.num_ranks < 1) {
    fail_invalid("[compare] ", path.string(), " must be of a finished run with at least one step, it has ",
                 run.steps.size(), finished ? " steps" : " steps and no end");
  }
  for (const RunRecord::Step& step : run.steps) {
    if (static_cast<int32_t>(step.rank_tokens.size()) != run.num_ranks) {
      fail_invalid("[compare] ", folder, " must have run on one number of ranks; step ", step.step, " ran on ",
                   step.rank_tokens.size(), " and the last on ", run.num_ranks);
    }
  }
  // The folder may have moved since it was written.
  const std::string latest = latest_checkpoint((fs::path(folder) / "checkpoints").string());
  if (!latest.empty()) run.checkpoint = latest;
  return run;
}

double weight_distance(const std::string& checkpoint, const std::string& reference) {
  const nn::ModelConfig model = nn::load_model_config(reference);
  if (const auto differing = nn::differences(nn::load_model_config(checkpoint), model); !differing.empty()) {
    fail_invalid("[compare] ", checkpoint, " and ", reference, " must be of one model: ", differing.front());
  }
  const nn::Parameters a = nn::load_weights(checkpoint, model, at::kDouble);
  const nn::Parameters b = nn::load_weights(reference, model, at::kDouble);
  double difference = 0;
  double norm = 0;
  for (const auto& [name, tensor] : b.items()) {
    difference += (a.at(name) - tensor).square().sum().item<double>();
    norm += tensor.square().sum().item<double>();
  }
  return std::sqrt(difference) / std::sqrt(norm);
}

Comparison compare_runs(const std::string& run, const std::string& reference,
                        const std::vector<std::string>& repacked) {
  Comparison c;
  c.run = read_run(run);
  c.reference = read_run(reference);
  const int64_t last = c.run.steps.back().step;
  if (c.reference.steps.back().step != last || c.reference.steps.size() != c.run.steps.size() ||
      c.reference.dtype != c.run.dtype) {
    fail_invalid("[compare] runs must have the same steps and dtype; ", run, " has ", c.run.steps.size(), " of ",
                 c.run.dtype, " and ", reference, " has ", c.reference.steps.size(), " of ", c.reference.dtype);
  }
  c.distance = weight_distance(c.run.checkpoint, c.reference.checkpoint);
  for (const std::string& folder : repacked) {
    const RunRecord other = read_run(folder);
    if (other.steps.back().step != last || other.dtype != c.run.dtype) {
      fail_invalid("[compare] repacked runs must end after step ", last, " and be of ", c.run.dtype, "; ", folder,
                   " ends after step ", other.steps.back().step, " and is of ", other.dtype);
    }
    c.repacked_distances.push_back(weight_distance(other.checkpoint, c.reference.checkpoint));
  }
  if (c.run.dtype == "float64") {
    c.allowed_distance = 1e-8;
  } else if (!repacked.empty()) {
    c.allowed_distance = std::max(1e-6, 10 * median(c.repacked_distances));
  } else {
    fail_invalid("[compare] ", c.run.dtype,
                 " runs are measured against one-rank runs of other data.pack_order, none was given; name five");
  }
  for (size_t i = 0; i < c.run.steps.size(); ++i) {
    c.largest_loss_difference =
        std::max(c.largest_loss_difference, std::abs(c.run.steps[i].loss - c.reference.steps[i].loss));
  }
  c.first_loss_difference = std::abs(c.run.steps[0].loss - c.reference.steps[0].loss);
  c.equal = c.distance <= c.allowed_distance && c.first_loss_difference <= 1e-6;
  return c;
}

std::string comparison_table(const Comparison& c) {
  std::string out = text("\n%6s  %20s  %12s  %12s\n", "step", text("loss, %d ranks", c.run.num_ranks).c_str(),
                         "loss, 1 rank", "difference");
  for (size_t i = 0; i < c.run.steps.size(); ++i) {
    const double a = c.run.steps[i].loss;
    const double b = c.reference.steps[i].loss;
    out += text("%6lld  %20.7f  %12.7f  %12.1e\n", static_cast<long long>(c.run.steps[i].step), a, b, a - b);
  }
  out += text("\n%6s  %14s  %14s  %16s  %16s\n", "rank", "tokens", "work of mean", "attention sent", "optimiser sent");
  std::vector<double> tokens(static_cast<size_t>(c.run.num_ranks)), work(tokens), attention(tokens), optimizer(tokens);
  double all_work = 0;
  for (const RunRecord::Step& s : c.run.steps) {
    for (size_t r = 0; r < tokens.size(); ++r) {
      tokens[r] += static_cast<double>(s.rank_tokens[r]);
      work[r] += s.rank_work[r];
      all_work += s.rank_work[r];
      for (size_t to = 0; to < tokens.size(); ++to) {
        attention[r] += static_cast<double>(s.attention_bytes[r][to]);
        optimizer[r] += static_cast<double>(s.optimizer_bytes[r][to]);
      }
    }
  }
  for (size_t r = 0; r < tokens.size(); ++r) {
    out += text("%6zu  %14.0f  %14.3f  %16s  %16s\n", r, tokens[r], work[r] * c.run.num_ranks / all_work,
                bytes_text(attention[r]).c_str(), bytes_text(optimizer[r]).c_str());
  }
  double worst_work = 1;
  double worst_tokens = 1;
  for (const RunRecord::Step& s : c.run.steps) {
    worst_work = std::max(worst_work, s.work_max_over_mean);
    worst_tokens = std::max(worst_tokens, s.tokens_max_over_mean);
  }
  out += text("worst step: work max/mean %.3f, tokens max/mean %.3f\n", worst_work, worst_tokens);
  out += ring_line(c.run);
  out += text("time: %.1f s on %d ranks, %.1f s on 1 rank (of the same machine)\n", c.run.seconds, c.run.num_ranks,
              c.reference.seconds);
  if (!std::isnan(c.run.held_out_loss))
    out += text("held-out loss: %.7f on %d ranks, %.7f on 1 rank\n", c.run.held_out_loss, c.run.num_ranks,
                c.reference.held_out_loss);
  out += "\nequal when the distance of all final weights (relative L2) is at most ";
  out += c.run.dtype == "float64" ? "1e-8" : "10 x the median of the repacked runs (at least 1e-6)";
  out += ",\nand the first loss differs by at most 1e-6:\n";
  for (size_t i = 0; i < c.repacked_distances.size(); ++i)
    out += text("  repacked run %zu, 1 rank: distance %.3e\n", i + 1, c.repacked_distances[i]);
  out += text("  %d ranks: distance %.3e, allowed %.3e; first loss differs by %.1e, the largest difference is %.1e\n",
              c.run.num_ranks, c.distance, c.allowed_distance, c.first_loss_difference, c.largest_loss_difference);
  out += c.equal ? "  EQUAL\n" : "  NOT EQUAL\n";
  return out;
}

}  // namespace evenspan::train
