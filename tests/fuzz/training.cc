// What the trainer reads.
#include <algorithm>
#include <filesystem>
#include <fstream>

#include "evenspan/core/error.h"
#include "evenspan/train/checkpoint_files.h"
#include "evenspan/train/config.h"
#include "evenspan/train/corpus.h"
#include "evenspan/train/report.h"
#include "files/input_file.h"
#include "fuzz/kinds.h"
#include "nn/safetensors_header.h"
#include "train/run_record.h"

namespace evenspan::fuzz {
namespace {

// The first tokens of all documents, up to a budget.
void read_all(const train::Corpus& corpus) {
  std::vector<int64_t> tokens;
  int64_t left = 1 << 16;
  for (int64_t d = 0; d < corpus.num_documents() && left > 0; ++d) {
    const int64_t length = std::min(corpus.length(d), left);
    tokens.resize(static_cast<size_t>(length));
    corpus.read(d, Span{0, length}, tokens.data());
    left -= length;
  }
}

const std::vector<std::string_view> kTrainingWords = {"{",    "}",    "[",    "]",      "\"a\": ", ",",
                                                      "null", "true", "\"\"", "[[[[",   "\n",      "\\u0000",
                                                      "\xff", "-1, ", "1.5",  "\\ud800"};

}  // namespace

void write(const std::string& path, const std::string& bytes) {
  std::ofstream out(path, std::ios::binary | std::ios::trunc);
  if (!(out << bytes).flush()) throw InternalError("cannot write " + path);
}

Kind config() {
  return {"config",
          {"[data]\n", "[[data]]\n", "path = ", "\"\"\"", "''", "= [", "]", "{a = {b = ", "a.b.c.d", "#", "nan", "-inf",
           "1979-05-27", "true", "0x7fffffffffffffff", "\\u0000", "\xff", "seed = ", "= 1e308"},
          [](const std::string& bytes, const std::string& folder) {
            const train::Config config = train::parse_config(bytes, "train.toml", folder, {});
            const std::string text = train::to_toml(config);
            if (train::to_toml(train::parse_config(text, "again", folder, {})) != text) {
              throw InternalError("the configuration is written to another one");
            }
          }};
}

Kind megatron_index() {
  return {"megatron_index",
          {"MMIDIDX", std::string_view("\0\0\0\0", 4), "\x04", "\x08", "\xff\xff\xff\xff"},
          [](const std::string& bytes, const std::string& folder) {
            write(folder + "/m.idx", bytes);
            if (!std::filesystem::exists(folder + "/m.bin")) write(folder + "/m.bin", std::string(4096, '\1'));
            read_all(*train::open_megatron(folder + "/m"));
          }};
}

Kind jsonl() {
  return {"jsonl", kTrainingWords, [](const std::string& bytes, const std::string& folder) {
            write(folder + "/d.jsonl", bytes);
            read_all(*train::open_jsonl(folder + "/d.jsonl"));
          }};
}

Kind safetensors() {
  return {"safetensors",
          {"{", "}", "[", "]", "\"F32\"", "\"shape\": [", "\"data_offsets\": [0, ", "\"__metadata__\": {", ",", "  ",
           "\"BOOL\"", "\xff"},
          [](const std::string& bytes, const std::string& folder) {
            write(folder + "/t.safetensors", bytes);
            const files::InputFile file(folder + "/t.safetensors", "safetensors");
            for (const auto& [name, entry] : nn::read_safetensors_header(file).tensors) {
              file.read(entry.begin, entry.end - entry.begin);
            }
          }};
}

Kind trainer_state() {
  return {"trainer_state", kTrainingWords, [](const std::string& bytes, const std::string&) {
            const train::TrainerState state = train::parse_trainer_state(bytes, "trainer_state.json");
            const std::string text = train::to_json(state);
            if (train::to_json(train::parse_trainer_state(text, "again")) != text) {
              throw InternalError("the state is written to another one");
            }
          }};
}

// Both the report of a finished run and what a run keeps that resumes.
Kind metrics() {
  return {"metrics", kTrainingWords, [](const std::string& bytes, const std::string& folder) {
            write(folder + "/metrics.jsonl", bytes);
            try {
              train::lines_until(folder + "/metrics.jsonl", 2);
            } catch (const Error&) {
            }
            train::Comparison comparison;
            comparison.run = comparison.reference = train::read_run(folder);
            train::comparison_table(comparison);
            train::comparison_page(comparison);
          }};
}

}  // namespace evenspan::fuzz
