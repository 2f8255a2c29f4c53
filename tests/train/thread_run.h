// Runs on ranks that are threads, and what they leave.
#pragma once

#include <nlohmann/json.hpp>

#include <fstream>
#include <string>
#include <vector>

#include "evenspan/comm/communicator.h"
#include "evenspan/train/trainer.h"
#include "files/input_file.h"
#include "train/scratch.h"

namespace evenspan::testing {

inline std::string llama_json(int64_t layers) {
  return R"({"model_type": "llama", "vocab_size": 257, "hidden_size": 24, "intermediate_size": 40, "num_attention_heads": 6,
             "num_key_value_heads": 2, "max_position_embeddings": 64, "head_dim": 4, "tie_word_embeddings": true, "num_hidden_layers": )" +
         std::to_string(layers) + "}";
}

inline train::Summary run(const train::Config& config, int32_t ranks) {
  train::Summary summary;
  comm::run_threads(ranks, [&](const comm::Communicator& communicator) {
    const train::Summary own = train::train(config, communicator);
    if (communicator.rank() == 0) summary = own;
  });
  return summary;
}

// A machine whose profile was measured for the model's heads: ranks that compute slowly beside fast or slow links.
inline std::string profile_json(double bytes_per_second, const std::string& dtype = "f64") {
  const std::string pass = R"({"operation_seconds": 0, "segment_seconds": 0, "seconds": [[1e-3]]})";
  return R"({"name": "test", "attention": [{"head_dim": 4, "dtypes": [")" + dtype +
         R"("], "tile": 1, "queries": [10], "keys": [10], "forward": )" + pass + R"(, "backward": )" + pass +
         R"(}], "memory_bytes_per_second": 1e12, "memory_operation_seconds": 0,
             "forward_flops_per_second": 1e12, "backward_flops_per_second": 1e12, "ranks_per_node": 2, "links": [)" +
         R"({"latency_seconds": 0, "bytes_per_second": )" + std::to_string(bytes_per_second) + "}]}";
}

inline std::vector<nlohmann::json> metrics_of(const Scratch& s, const std::string& run) {
  std::vector<nlohmann::json> lines;
  std::ifstream in(s.path(run) + "/metrics.jsonl");
  for (std::string line; std::getline(in, line);) lines.push_back(nlohmann::json::parse(line));
  return lines;
}

inline std::string bytes_of(const std::string& checkpoint) {
  return files::read_text(checkpoint + "/model.safetensors", "test") +
         files::read_text(checkpoint + "/optimizer.safetensors", "test");
}

}  // namespace evenspan::testing
