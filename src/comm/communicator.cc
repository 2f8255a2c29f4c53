#include "evenspan/comm/communicator.h"

#include <ATen/ops/from_blob.h>

#include <algorithm>

#include "evenspan/core/error.h"
#include "evenspan/core/hash.h"

namespace evenspan::comm {
namespace {

constexpr uint64_t kLeastHash = uint64_t{1} << 31;  // lesser values are numbers that a reader knows

// The ranks are numbered as in errors.
std::string difference(const ComparedValue& part, Rank one, uint64_t its, Rank other, uint64_t others) {
  if (std::max(its, others) >= kLeastHash) return part.name;
  return join_text(part.name, " (", its, " on rank ", one, ", ", others, " on rank ", other, ")");
}

}  // namespace

void Communicator::refuse(const std::string& operation, const std::string& reason) const noexcept {
  Calls& calls = *backend_->calls();
  if (calls.begin(operation, "")) backend_->refuse(operation, reason, calls);
  calls.end();
}

void Communicator::fail_call(const std::string& operation, const std::string& reason) const noexcept {
  Calls& calls = *backend_->calls();
  calls.has_transfers() ? backend_->abort(operation, reason) : backend_->refuse(operation, reason, calls);
}

void compare(const Communicator& communicator, const std::vector<ComparedValue>& parts, const Comparison& comparison) {
  if (communicator.size() == 1) return;
  Hasher names;
  std::vector<uint64_t> values;
  for (const ComparedValue& part : parts) {
    names.add(part.name);
    values.push_back(part.value);
  }
  values.push_back(names.state());
  const at::Tensor own = at::from_blob(values.data(), {static_cast<int64_t>(values.size())}, at::kLong);
  const std::vector<at::Tensor> all = all_gather(communicator, own.to(comparison.device), comparison.operation);
  const at::Tensor first = all[0].cpu();
  const auto* expected = first.const_data_ptr<int64_t>();
  for (Rank rank(1); rank < communicator.size(); ++rank.value) {
    const at::Tensor its = all[rank].cpu();
    const auto* actual = its.const_data_ptr<int64_t>();
    if (std::equal(actual, actual + values.size(), expected)) continue;
    const Rank one = communicator.outermost(Rank(0));
    const Rank other = communicator.outermost(rank);
    std::string differences;
    for (size_t i = 0; i < parts.size(); ++i) {
      if (actual[i] == expected[i]) continue;
      differences += (differences.empty() ? "" : ", ") + difference(parts[i], one, static_cast<uint64_t>(expected[i]),
                                                                    other, static_cast<uint64_t>(actual[i]));
    }
    if (actual[parts.size()] != expected[parts.size()]) differences = "what they compare";
    fail(ErrorKind::communication, "[", comparison.operation, "] ranks ", one, " and ", other, " hold different ",
         comparison.things, ": they differ in ", differences, "; ", comparison.remedy);
  }
}

}  // namespace evenspan::comm
