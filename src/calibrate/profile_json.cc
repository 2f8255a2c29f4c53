#include <nlohmann/json.hpp>

#include <cstdio>
#include <cstdlib>

#include "evenspan/calibrate/calibrate.h"

namespace evenspan::calibrate {
namespace {

using Json = nlohmann::ordered_json;

double rounded(double value) {
  char text[32];
  std::snprintf(text, sizeof(text), "%.6g", value);
  return std::strtod(text, nullptr);
}

Json list_of(const std::vector<double>& values, size_t begin, size_t end) {
  Json list = Json::array();
  for (size_t i = begin; i < end; ++i) list.push_back(rounded(values[i]));
  return list;
}

Json pass_json(const simulate::PassTimes& times, size_t num_keys) {
  Json rows = Json::array();
  for (size_t i = 0; i < times.seconds.size(); i += num_keys) rows.push_back(list_of(times.seconds, i, i + num_keys));
  return {{"operation_seconds", rounded(times.operation_seconds)},
          {"segment_seconds", rounded(times.segment_seconds)},
          {"merge_seconds", rounded(times.merge_seconds)},
          {"merge_row_seconds", rounded(times.merge_row_seconds)},
          {"square_seconds", list_of(times.square_seconds, 0, times.square_seconds.size())},
          {"seconds", rows}};
}

Json attention_json(const simulate::AttentionTimes& times) {
  Json types = Json::array();
  for (const plan::ElementType element : times.elements) types.push_back(to_string(element));
  return {{"head_dim", times.head_dim},
          {"dtypes", types},
          {"tile", times.tile},
          {"queries", times.queries},
          {"keys", times.keys},
          {"squares", times.squares},
          {"forward", pass_json(times.forward, times.keys.size())},
          {"backward", pass_json(times.backward, times.keys.size())}};
}

Json link_json(const simulate::Link& link) {
  Json json = {{"latency_seconds", rounded(link.latency_seconds)},
               {"bytes_per_second", rounded(link.bytes_per_second)},
               {"message_seconds", rounded(link.message_seconds)},
               {"compute_byte_seconds", rounded(link.compute_byte_seconds)},
               {"compute_message_seconds", rounded(link.compute_message_seconds)}};
  if (link.cards > 0) {
    json["cards"] = link.cards;
    json["card_bytes_per_second"] = rounded(link.card_bytes_per_second);
  }
  return json;
}

// A line for each key and each row of a table.
void write(const Json& json, const std::string& indent, std::string* out) {
  const bool is_list = json.is_array();
  if (!json.is_object() && !(is_list && !json.empty() && json[0].is_structured())) {
    std::string text = json.dump();
    if (is_list) {
      for (size_t at = 0; (at = text.find(',', at)) != text.npos; at += 2) text.replace(at, 1, ", ");
    }
    *out += text;
    return;
  }
  *out += is_list ? "[" : "{";
  const char* separator = "\n";
  for (const auto& [key, value] : json.items()) {
    *out += separator + indent + "  ";
    if (!is_list) *out += Json(key).dump() + ": ";
    write(value, indent + "  ", out);
    separator = ",\n";
  }
  *out += "\n" + indent + (is_list ? "]" : "}");
}

}  // namespace

std::string to_json(const Calibration& calibration) {
  const simulate::Profile& profile = calibration.profile;
  Json sources = Json::object();
  for (const auto& [field, source] : calibration.sources) sources[field] = source;
  Json attention = Json::array(), links = Json::array();
  for (const simulate::AttentionTimes& times : profile.attention) attention.push_back(attention_json(times));
  for (const simulate::Link& link : profile.links) links.push_back(link_json(link));
  const Json json = {{"name", profile.name},
                     {"about", calibration.about},
                     {"sources", sources},
                     {"attention", attention},
                     {"memory_bytes_per_second", rounded(profile.memory_bytes_per_second)},
                     {"memory_operation_seconds", rounded(profile.memory_operation_seconds)},
                     {"memory_pair_seconds", rounded(profile.memory_pair_seconds)},
                     {"forward_flops_per_second", rounded(profile.forward_flops_per_second)},
                     {"backward_flops_per_second", rounded(profile.backward_flops_per_second)},
                     {"ranks_per_node", profile.ranks_per_node},
                     {"links", links}};
  std::string text;
  write(json, "", &text);
  return text + "\n";
}

}  // namespace evenspan::calibrate
