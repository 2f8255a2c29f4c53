#include "evenspan/machine/machine_files.h"

#include <filesystem>
#include <limits>

#include "evenspan/core/error.h"
#include "evenspan/core/nearest.h"
#include "evenspan/core/quoted.h"
#include "files/input_file.h"
#include "files/json.h"
#include "files/json_fields.h"

namespace evenspan::machine {
namespace {

using files::Fields;
using files::parse_json;
using simulate::AttentionTimes;
using simulate::Link;
using simulate::PassTimes;

int32_t count(const Fields& in, const std::string& key, int64_t otherwise = 0) {
  const int64_t value = otherwise == 0 ? in.whole(key) : in.whole(key, otherwise);
  if (value < 0 || value > std::numeric_limits<int32_t>::max()) in.refuse(key, "it is not negative and below 2^31");
  return static_cast<int32_t>(value);
}

PassTimes read_pass(const Fields& in) {
  in.refuse_others({"source", "operation_seconds", "segment_seconds", "seconds", "square_seconds", "merge_seconds",
                    "merge_row_seconds"});
  return PassTimes{in.number("operation_seconds"),
                   in.number("segment_seconds"),
                   in.table("seconds"),
                   in.has("square_seconds") ? in.numbers("square_seconds") : std::vector<double>{},
                   in.number("merge_seconds", 0),
                   in.number("merge_row_seconds", 0)};
}

AttentionTimes read_attention(const Fields& in) {
  in.refuse_others({"source", "head_dim", "dtypes", "tile", "queries", "keys", "squares", "forward", "backward"});
  AttentionTimes times;
  times.head_dim = count(in, "head_dim");
  for (const std::string& type : in.texts("dtypes")) times.elements.push_back(plan::parse_element_type(type));
  times.tile = in.whole("tile");
  times.queries = in.wholes("queries");
  times.keys = in.wholes("keys");
  if (in.has("squares")) times.squares = in.wholes("squares");
  times.forward = read_pass(in.object("forward"));
  times.backward = read_pass(in.object("backward"));
  return times;
}

const std::vector<std::string> kLinkFields = {
    "source",          "latency_seconds",      "bytes_per_second",       "cards", "card_bytes_per_second",
    "message_seconds", "compute_byte_seconds", "compute_message_seconds"};

Link read_link(const Fields& in) {
  return Link{
      in.number("latency_seconds"),           in.number("bytes_per_second"),   in.has("cards") ? count(in, "cards") : 0,
      in.number("card_bytes_per_second", 0),  in.number("message_seconds", 0), in.number("compute_byte_seconds", 0),
      in.number("compute_message_seconds", 0)};
}

simulate::Profile parse_profile(const std::string& text, const std::string& file) {
  const nlohmann::json json = parse_json(text, "profile", file);
  const Fields in(json, "profile", file);
  in.refuse_others({"name", "about", "sources", "attention", "memory_bytes_per_second", "memory_operation_seconds",
                    "memory_pair_seconds", "forward_flops_per_second", "backward_flops_per_second", "ranks_per_node",
                    "links"});
  simulate::Profile profile;
  profile.name = in.text("name");
  for (const Fields& times : in.objects("attention")) profile.attention.push_back(read_attention(times));
  profile.memory_bytes_per_second = in.number("memory_bytes_per_second");
  profile.memory_operation_seconds = in.number("memory_operation_seconds");
  profile.memory_pair_seconds = in.number("memory_pair_seconds", 0);
  profile.forward_flops_per_second = in.number("forward_flops_per_second");
  profile.backward_flops_per_second = in.number("backward_flops_per_second");
  profile.ranks_per_node = count(in, "ranks_per_node");
  for (const Fields& link : in.objects("links")) {
    link.refuse_others(kLinkFields);
    profile.links.push_back(read_link(link));
  }
  simulate::validate(profile);
  return profile;
}

}  // namespace

std::string read_text_file(const std::string& path) { return files::read_text(path, "input"); }

simulate::Profile read_profile(const std::string& name_or_file, const ReadFile& read) {
  const auto& shipped = shipped_profiles();
  const auto at = shipped.find(name_or_file);
  if (at != shipped.end()) return parse_profile(at->second, name_or_file);
  std::error_code error;
  if (name_or_file != "-" && !std::filesystem::exists(name_or_file, error)) {
    std::string list;
    std::vector<std::string> names;
    for (const auto& [name, text] : shipped) {
      list += (list.empty() ? "" : ", ") + name;
      names.push_back(name);
    }
    fail_invalid("[profile] there is no shipped profile and no file ", quoted(name_or_file, 200), "; shipped are ",
                 list, did_you_mean(name_or_file, names));
  }
  return parse_profile(read(name_or_file), name_or_file);
}

simulate::Machine parse_topology(const std::string& text, const std::string& file, const simulate::Profile& profile) {
  const nlohmann::json json = parse_json(text, "topology", file);
  const Fields in(json, "topology", file);
  in.refuse_others({"about", "ranks", "nodes", "ranks_per_node", "levels", "cores"});
  const int32_t num_ranks = count(in, "ranks");
  const int32_t ranks_per_node = in.has("ranks_per_node") ? count(in, "ranks_per_node") : 0;
  const int64_t num_nodes = in.has("nodes") ? count(in, "nodes") : 0;
  if (in.has("nodes") && num_nodes * ranks_per_node != num_ranks) {
    in.refuse("nodes", join_text("nodes x ranks_per_node make up the ranks, ", num_nodes, " x ", ranks_per_node,
                                 " are not ", num_ranks));
  }
  const int32_t num_cores = in.has("cores") ? count(in, "cores") : 0;
  if (!in.has("levels")) {
    simulate::Machine machine = simulate::make_machine(profile, num_ranks, ranks_per_node);
    machine.num_cores = num_cores;
    simulate::validate(machine);
    return machine;
  }

  simulate::Machine machine;
  machine.num_cores = num_cores;
  machine.topology.num_ranks = num_ranks;
  for (const Fields& level : in.objects("levels")) {
    std::vector<std::string> known = kLinkFields;
    known.emplace_back("group_size");
    level.refuse_others(known);
    const size_t number = machine.links.size();
    if (!level.has("bytes_per_second") && number >= profile.links.size()) {
      level.refuse("bytes_per_second", "the profile " + profile.name + " has no link for this level, give one");
    }
    machine.links.push_back(level.has("bytes_per_second") ? read_link(level) : profile.links[number]);
    const Link& link = machine.links.back();
    machine.topology.levels.push_back(
        plan::Level{count(level, "group_size"), link.latency_seconds, link.bytes_per_second});
  }
  if (ranks_per_node > 0 && !machine.topology.levels.empty() && machine.topology.ranks_per_node() != ranks_per_node) {
    in.refuse("ranks_per_node", join_text("the first level has groups of ", machine.topology.ranks_per_node(),
                                          "; leave one of the two out"));
  }
  simulate::validate(machine);
  return machine;
}

simulate::Machine machine_of_run(const std::string& topology, const simulate::Profile& profile, int32_t num_ranks,
                                 int32_t ranks_per_node) {
  if (topology.empty()) {
    return simulate::make_machine(profile, num_ranks, ranks_per_node == 0 ? num_ranks : ranks_per_node);
  }
  if (ranks_per_node != 0) {
    fail_invalid("[topology] ", topology, " says which ranks share a node, and ranks_per_node = ", ranks_per_node,
                 " says it again; give one of them");
  }
  simulate::Machine machine = parse_topology(read_text_file(topology), topology, profile);
  if (machine.topology.num_ranks != num_ranks) {
    fail_invalid("[topology] ", topology, " has ", machine.topology.num_ranks, " ranks, there are ", num_ranks,
                 "; give the topology of the ranks that share a batch");
  }
  return machine;
}

}  // namespace evenspan::machine
