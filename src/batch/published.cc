#include "evenspan/batch/published.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "evenspan/core/error.h"

namespace evenspan::batch {
namespace {

constexpr std::array<PublishedModel, 3> kModels = {{
    {"7b", 4.480441895, 5.128e-6, 0.1839576, 629.3563, 4096, 32, 7.1174468994140625, 7.8498687744140625},
    {"13b", 4.220439453, 9.2852e-6, 0.3060189, 1132.5632, 5120, 40, 13.11605453491211, 14.03158187866211},
    {"30b", 3.417381836, 1.54262e-5, 0.8035742, 2789.3644, 6656, 60, 31.52513885498047, 32.71532440185547},
}};

// MiB a millisecond of an all-to-all over 2, 4, ..., 64 GPUs: the setting that is active in the source.
constexpr std::array<double, 6> kRates = {119.54, 104.07, 96.5, 10.33, 5.94, 4.87};
constexpr double kMemoryMib = 30 * 1024;
constexpr int64_t kMultiple = 128;

}  // namespace

std::span<const PublishedModel> published_models() { return kModels; }

Cost published_cost(std::string_view name, int32_t num_ranks, double context_limit) {
  const auto found = std::find_if(kModels.begin(), kModels.end(), [&](const auto& m) { return m.name == name; });
  if (found == kModels.end()) {
    fail_invalid("[batch] there are no published constants of a model \"", name, "\"; there are 7b, 13b and 30b");
  }
  const PublishedModel& model = *found;
  const double params =
      model.params_192k + (model.params_384k - model.params_192k) * (context_limit - 192) / (384 - 192);
  Cost cost;
  cost.num_ranks = num_ranks;
  cost.ranks_per_node = 8;
  cost.capacity_tokens =
      static_cast<int64_t>(std::floor((kMemoryMib - params * 16 / num_ranks * 1024) / model.activation_mib));
  cost.square_seconds = model.square_ms * 1e-3;
  cost.token_seconds = model.token_ms * 1e-3;
  cost.micro_batch_seconds = model.micro_batch_ms * 1e-3;
  cost.exchange_seconds = {0};
  // 4 all-to-alls in either pass, 2 bytes an element.
  const double mib = 8.0 * model.num_layers * static_cast<double>(model.hidden) * 2 / (1 << 20);
  for (size_t i = 0; (int64_t{1} << i) < num_ranks; ++i) {
    cost.exchange_seconds.push_back(mib / kRates[std::min(i, kRates.size() - 1)] * 1e-3);
  }
  return cost;
}

std::vector<int64_t> published_lengths(std::span<const int64_t> lengths, int64_t context_limit) {
  std::vector<int64_t> out;
  for (const int64_t length : lengths) {
    const int64_t rounded = (length + kMultiple - 1) / kMultiple * kMultiple;
    if (rounded <= context_limit * 1000 - kMultiple) out.push_back(rounded);
  }
  return out;
}

}  // namespace evenspan::batch
