// Groups of ranks, in terms of the backend that they are made from: messages go through it with the numbers of its
// ranks, as parts of the group's own calls.
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <utility>

#include "comm/transfers.h"
#include "evenspan/comm/communicator.h"
#include "evenspan/core/error.h"
#include "evenspan/core/hash.h"

namespace evenspan::comm {
namespace {

class GroupBackend : public Backend {
 public:
  // REQUIRES: `members` are ranks of `parent`, its own one at `rank`.
  GroupBackend(std::shared_ptr<Backend> parent, std::vector<Rank> members, Rank rank, std::shared_ptr<Calls> calls)
      : parent_(std::move(parent)), members_(std::move(members)), rank_(rank), calls_(std::move(calls)) {}

  Rank rank() const override { return rank_; }
  int32_t size() const override { return static_cast<int32_t>(members_.size()); }

  std::unique_ptr<Work> exchange(std::vector<Transfer> sends, std::vector<Transfer> receives,
                                 const std::string& operation, const std::shared_ptr<Calls>& calls) override {
    check_transfers(rank_, size(), sends, receives, operation);
    for (auto* transfers : {&sends, &receives}) {
      for (Transfer& transfer : *transfers) transfer.peer = members_[static_cast<size_t>(transfer.peer)];
    }
    return parent_->exchange(std::move(sends), std::move(receives), operation, calls);
  }

  void abort(const std::string& operation, const std::string& reason) noexcept override {
    parent_->abort(operation, reason);
  }
  void refuse(const std::string& operation, const std::string& reason, Calls& calls) noexcept override {
    parent_->refuse(operation, reason, calls);
  }
  const std::shared_ptr<Calls>& calls() override { return calls_; }

 private:
  const std::shared_ptr<Backend> parent_;
  const std::vector<Rank> members_;  // [rank of the group]
  const Rank rank_;
  const std::shared_ptr<Calls> calls_;
};

std::string list_of(const std::vector<Rank>& ranks) {
  std::string text;
  for (const Rank rank : ranks) text += join_text(text.empty() ? "" : ", ", rank);
  return text.empty() ? "none" : text;
}

void check_members(const std::vector<Rank>& members, Rank rank, int32_t size, const std::string& operation) {
  const auto refuse = [&](const std::string& rule, const char* remedy) {
    fail_invalid("[", operation, "] ", rule, ", but rank ", rank, " gave ", list_of(members), "; ", remedy);
  };
  if (std::adjacent_find(members.begin(), members.end(), [](Rank a, Rank b) { return a >= b; }) != members.end()) {
    refuse("members are ascending, each once", "sort them and leave out what comes twice");
  }
  if (!members.empty() && (members.front() < 0 || members.back() >= size)) {
    refuse(join_text("members are in [0, ", size, ")"), "number the ranks inside the communicator that is split");
  }
  if (!std::binary_search(members.begin(), members.end(), rank)) {
    refuse("a rank is a member of its group", "give the group that holds it, or the rank alone");
  }
}

std::vector<Rank> members_in(const at::Tensor& row) {
  std::vector<Rank> members;
  const auto* marks = row.const_data_ptr<uint8_t>();
  for (Rank rank(0); rank < row.numel(); ++rank.value) {
    if (marks[rank] != 0) members.push_back(rank);
  }
  return members;
}

// `rows` are of all ranks, so all of them throw.
void check_lists(const std::vector<at::Tensor>& rows, const std::string& operation) {
  for (Rank rank(0); rank < static_cast<int32_t>(rows.size()); ++rank.value) {
    const std::vector<Rank> members = members_in(rows[static_cast<size_t>(rank)]);
    for (const Rank member : members) {
      const at::Tensor& theirs = rows[static_cast<size_t>(member)];
      if (theirs.equal(rows[static_cast<size_t>(rank)])) continue;
      fail(ErrorKind::communication, "[", operation, "] all members of a group name the same ranks, but rank ", rank,
           " gave ", list_of(members), " and rank ", member, " gave ", list_of(members_in(theirs)),
           "; give every rank the whole of its one group");
    }
  }
}

}  // namespace

Communicator Communicator::split(const std::vector<Rank>& members, const std::string& operation) const {
  const std::vector<at::Tensor> rows = call(operation, "", [&] {
    check_members(members, rank(), size(), operation);
    const at::Tensor row = at::zeros({size()}, at::kByte);
    for (const Rank member : members) row.mutable_data_ptr<uint8_t>()[member] = 1;
    return all_gather(*this, row, operation);
  });
  check_lists(rows, operation);
  std::vector<Rank> outermost_members;
  Hasher group;
  group.add(call_hash());
  for (const Rank member : members) {
    outermost_members.push_back(outermost(member));
    group.add(outermost_members.back().value);
  }
  const auto own = std::lower_bound(members.begin(), members.end(), rank()) - members.begin();
  auto calls = std::make_shared<Calls>(group.state() >> 1 | 1, std::move(outermost_members));
  return Communicator(std::make_shared<GroupBackend>(backend_, members, Rank(own), std::move(calls)));
}

}  // namespace evenspan::comm
