// What the published configs of model families mean where their keys alone do not say it.
#pragma once

#include <cstdint>
#include <string_view>

namespace evenspan::machine {

// Which layers have a window, where a config lists no layer_types. Layers are counted from 0.
enum class WindowRule : uint8_t {
  listed,                       // none but listed ones
  every_layer,                  // all
  but_every_nth,                // all but layers n - 1, 2n - 1, ...
  from_max_window_layers,       // those from max_window_layers on
  even_below_max_window_layers  // those with even numbers below max_window_layers
};

struct ModelFamily {
  std::string_view model_type;
  int32_t num_products = 3;  // of a token in an MLP: 3 where it is gated, else 2
  WindowRule windows = WindowRule::listed;
  bool has_switch = false;         // windows need use_sliding_window
  bool four_times_wide = false;    // MLPs are 4 times the hidden size where their width is left out
  std::string_view defaults = "";  // JSON of what keys mean that a config leaves out
};

// Null for a model type that is not in the table; what it says is then taken as Llama's keys mean it.
const ModelFamily* find_family(std::string_view model_type);

// Whether a key says nothing of what is weighed: identifiers, normalisation, positions, initial values, biases, scales
// of scores, what is left out by a decoder that is trained.
bool is_harmless(std::string_view key);

// Why a key is not weighed, for those that are met often; empty for others.
std::string_view reason_against(std::string_view key);

}  // namespace evenspan::machine
