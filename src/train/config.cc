#include "evenspan/train/config.h"

#include <stdexcept>

// The parser states what it relies on by assertions, some of which hostile text breaks. Without them it would go on
// into undefined behaviour, with those of the language it would end the program: here a broken one is an exception.
[[noreturn]] static void break_off(const char* assertion) { throw std::logic_error(assertion); }
#undef NDEBUG
#define TOML_ASSERT(expression) (static_cast<bool>(expression) ? static_cast<void>(0) : break_off(#expression))
#include <toml++/toml.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <filesystem>

#include "evenspan/core/bytes.h"
#include "evenspan/core/error.h"
#include "evenspan/core/nearest.h"
#include "evenspan/machine/machine_files.h"
#include "files/input_file.h"
#include "train/config_text.h"

namespace evenspan::train {
namespace {

namespace fs = std::filesystem;

template <class... F>
struct Overloaded : F... {
  using F::operator()...;
};
template <class... F>
Overloaded(F...) -> Overloaded<F...>;

// What a user wrote, in a message: on one line, and not all of a long text.
std::string one_line(std::string text) {
  constexpr size_t kMostBytes = 200;
  for (char& c : text) {
    if (c >= 0 && c < ' ') c = ' ';
  }
  return text.size() > kMostBytes ? text.substr(0, kMostBytes) + "..." : text;
}

const Key& find_key(const std::vector<Key>& keys, const std::string& name, const std::string& source) {
  std::vector<std::string> names;
  std::vector<std::string> fields;  // the right field in the wrong section, or in none, is near too
  for (const Key& key : keys) {
    if (key.name == name) return key;
    names.push_back(key.name);
    fields.push_back(key.name.substr(key.name.find('.') + 1));
  }
  std::string nearest = nearest_name(name, names);
  if (nearest.empty()) {
    const std::string field = nearest_name(name.substr(name.rfind('.') + 1), fields);
    for (const std::string& full : names) {
      if (nearest.empty() && !field.empty() && full.ends_with("." + field)) nearest = full;
    }
  }
  fail_invalid("[config] ", source, ": there is no key ", one_line(name),
               nearest.empty() ? "; --help lists all of them" : "; did you mean '" + nearest + "'?");
}

[[noreturn]] void wrong_type(const Key& key, const std::string& source, const std::string& value) {
  fail_invalid("[config] ", source, ": ", key.name, " must be a value of type ", type_name(key), ", it is ",
               one_line(value));
}

std::string joined(const std::vector<std::string>& items) {
  std::string text;
  for (const std::string& item : items) text += (text.empty() ? "" : ", ") + item;
  return text;
}

// The spelling of the choices, or the text as it is when it names no type.
std::string type_spelling(const std::string& text) {
  try {
    switch (plan::parse_element_type(text)) {
      case plan::ElementType::bf16:
        return "bfloat16";
      case plan::ElementType::f16:
        return "float16";
      case plan::ElementType::f32:
        return "float32";
      case plan::ElementType::f64:
        return "float64";
    }
  } catch (const Error&) {
  }
  return text;
}

void check_value(const Key& key, const std::string& source) {
  const auto check_range = [&](double x) {
    if (!(x >= key.least && x <= key.greatest)) {
      fail_invalid("[config] ", source, ": ", key.name, " must be from ", key.least, " to ", key.greatest, ", it is ",
                   x);
    }
  };
  std::visit(Overloaded{[&](int64_t* x) { check_range(static_cast<double>(*x)); }, [&](double* x) { check_range(*x); },
                        [&](std::string* x) {
                          if (key.is_type) *x = type_spelling(*x);
                          if (key.choices.empty() ||
                              std::find(key.choices.begin(), key.choices.end(), *x) != key.choices.end())
                            return;
                          fail_invalid("[config] ", source, ": ", key.name, " must be one of ", joined(key.choices),
                                       ", it is \"", one_line(*x), "\"", did_you_mean(*x, key.choices));
                        },
                        [](auto*) {}},
             key.value);
}

void resolve_path(const Key& key, const fs::path& folder) {
  auto& path = *std::get<std::string*>(key.value);
  if (path.empty() || fs::path(path).is_absolute()) return;
  if ((path == "latest" && key.name == "run.resume") || (path == kBytes && key.name == "data.tokenizer")) return;
  if (key.name == "parallel.profile" && machine::shipped_profiles().contains(path)) return;
  path = (folder / path).lexically_normal().string();
}

int64_t bytes_of(const Key& key, const std::string& text, const std::string& source) {
  return parse_bytes("[config] " + source + ": " + key.name, text);
}

void set_from_toml(const Key& key, const toml::node& node, const std::string& source) {
  std::ostringstream written;
  written << toml::node_view<const toml::node>(node);
  const auto wrong = [&]() { wrong_type(key, source, written.str()); };
  std::visit(Overloaded{[&](bool* x) { node.is_boolean() ? void(*x = node.as_boolean()->get()) : wrong(); },
                        [&](int64_t* x) {
                          if (key.is_bytes && node.is_string()) {
                            *x = bytes_of(key, node.as_string()->get(), source);
                          } else {
                            node.is_integer() ? void(*x = node.as_integer()->get()) : wrong();
                          }
                        },
                        [&](double* x) { node.is_number() ? void(*x = *node.value<double>()) : wrong(); },
                        [&](std::string* x) { node.is_string() ? void(*x = node.as_string()->get()) : wrong(); },
                        [&](std::vector<std::string>* x) {
                          if (!node.is_array()) wrong();
                          x->clear();
                          for (const toml::node& item : *node.as_array()) {
                            if (!item.is_string()) wrong();
                            x->push_back(item.as_string()->get());
                          }
                        }},
             key.value);
}

template <class T>
bool parse_number(const std::string& text, T* x) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), *x);
  return error == std::errc() && end == text.data() + text.size();
}

void set_from_text(const Key& key, const std::string& text, const std::string& source) {
  const auto require = [&](bool ok) {
    if (!ok) wrong_type(key, source, "\"" + text + "\"");
  };
  std::visit(Overloaded{[&](bool* x) {
                          require(text == "true" || text == "false");
                          *x = text == "true";
                        },
                        [&](int64_t* x) {
                          if (key.is_bytes) {
                            *x = bytes_of(key, text, source);
                          } else {
                            require(parse_number(text, x));
                          }
                        },
                        [&](double* x) { require(parse_number(text, x)); }, [&](std::string* x) { *x = text; },
                        [&](std::vector<std::string>* x) {  // "a,b"; empty: none
                          x->clear();
                          std::istringstream parts(text);
                          for (std::string part; std::getline(parts, part, ',');) x->push_back(part);
                        }},
             key.value);
}

std::string toml_text(const std::string& text) {
  std::ostringstream out;
  out << toml::value<std::string>(text);
  return out.str();
}

void read_toml(const std::string& text, const std::string& source, const fs::path& folder, std::vector<Key>& keys) {
  toml::table table;
  try {
    table = toml::parse(text, source);
  } catch (const toml::parse_error& e) {
    fail_invalid("[config] ", source, ":", e.source().begin.line,
                 ": not TOML: ", one_line(std::string(e.description())));
  } catch (const std::logic_error&) {
    fail_invalid("[config] ", source,
                 " is not TOML, and its parser cannot say where; look for a broken key or bracket");
  }
  for (const auto& [section, node] : table) {
    const std::string section_name(section.str());
    if (!node.is_table()) {
      find_key(keys, section_name, source);
      fail_invalid("[config] ", source, ": ", section_name, " must stand inside a section");
    }
    for (const auto& [name, value] : *node.as_table()) {
      const std::string where = join_text(source, ":", value.source().begin.line);
      const Key& key = find_key(keys, section_name + "." + std::string(name.str()), where);
      set_from_toml(key, value, where);
      check_value(key, where);
      if (key.is_path) resolve_path(key, folder);
    }
  }
}

}  // namespace

std::string type_name(const Key& key) {
  return std::visit(
      Overloaded{[](bool*) { return "true|false"; }, [&](int64_t*) { return key.is_bytes ? "bytes" : "integer"; },
                 [](double*) { return "number"; }, [](std::string*) { return "text"; },
                 [](std::vector<std::string>*) { return "list"; }},
      key.value);
}

std::string value_text(const Key& key) {
  return std::visit(Overloaded{[](bool* x) { return std::string(*x ? "true" : "false"); },
                               [](int64_t* x) { return std::to_string(*x); },
                               [](double* x) -> std::string {
                                 char buffer[64];  // the shortest text that reads back to the same number
                                 const std::string text(buffer, std::to_chars(buffer, buffer + sizeof buffer, *x).ptr);
                                 return text.find_first_of(".e") == std::string::npos ? text + ".0" : text;
                               },
                               [](std::string* x) -> std::string { return toml_text(*x); },
                               [](std::vector<std::string>* x) -> std::string {
                                 std::string text = "[";
                                 for (const std::string& item : *x)
                                   text += (text.size() > 1 ? ", " : "") + toml_text(item);
                                 return text + "]";
                               }},
                    key.value);
}

machine::MicroBatchLimits micro_batch_limits(const ParallelConfig& config) {
  return {config.batch_planner, config.micro_batch_tokens, config.memory_budget};
}

void validate(const Config& c) {
  const auto require = [](bool ok, const auto&... parts) {
    if (!ok) fail_invalid("[config] ", parts...);
  };
  require(!c.data.path.empty(),
          "data.path is required; name a folder of text files, a .jsonl file or a .bin/.idx pair");
  require(!c.model.config.empty(), "model.config is required; name a Hugging Face config.json");
  require(c.data.max_document_tokens <= c.data.batch_tokens,
          "data.max_document_tokens must be at most data.batch_tokens, they are ", c.data.max_document_tokens, " and ",
          c.data.batch_tokens);
  require(c.parallel.micro_batch_tokens <= c.data.batch_tokens,
          "parallel.micro_batch_tokens must be at most data.batch_tokens, of which a micro-batch is a part, they are ",
          c.parallel.micro_batch_tokens, " and ", c.data.batch_tokens);
  require(micro_batch_limits(c.parallel).any() || c.parallel.batch_planner == ParallelConfig().batch_planner,
          "parallel.batch_planner is \"", c.parallel.batch_planner,
          "\", which has no effect without parallel.micro_batch_tokens or parallel.memory_budget; give one of them, or "
          "leave it out");
  require(c.optimizer.min_learning_rate <= c.optimizer.learning_rate,
          "optimizer.min_learning_rate must be at most optimizer.learning_rate, they are ",
          c.optimizer.min_learning_rate, " and ", c.optimizer.learning_rate);
  require(c.optimizer.decay_steps == 0 || c.optimizer.warmup_steps <= c.optimizer.decay_steps,
          "optimizer.warmup_steps must be at most optimizer.decay_steps, they are ", c.optimizer.warmup_steps, " and ",
          c.optimizer.decay_steps);
  require(c.run.steps >= 1, "run.steps must be at least 1, it is ", c.run.steps);
  require(c.run.checkpoint_interval == 0 || !c.run.folder.empty(), "run.checkpoint_interval is ",
          c.run.checkpoint_interval, "; checkpoints need run.folder");
  require(c.run.resume != "latest" || !c.run.folder.empty(),
          "run.resume = \"latest\" looks into run.folder, which is empty");
  require(!c.run.record_placement || !c.run.folder.empty(),
          "run.record_placement writes into run.folder, which is empty");
  require(c.run.eval_interval == 0 || c.data.held_out_fraction > 0, "run.eval_interval is ", c.run.eval_interval,
          "; evaluation needs data.held_out_fraction above 0");
}

Config parse_config(const std::string& text, const std::string& source, const std::string& folder,
                    const Overrides& overrides) {
  Config config;
  std::vector<Key> keys = bind_keys(config);
  read_toml(text, source, fs::absolute(folder), keys);
  for (const auto& [name, value] : overrides) {
    const std::string where = "command line";
    const Key& key = find_key(keys, name, where);
    set_from_text(key, value, where);
    check_value(key, where);
    if (key.is_path) resolve_path(key, fs::current_path());
  }
  validate(config);
  return config;
}

Config load_config(const std::string& path, const Overrides& overrides) {
  return parse_config(files::read_text(path, "config"), path, fs::absolute(path).parent_path().string(), overrides);
}

}  // namespace evenspan::train
