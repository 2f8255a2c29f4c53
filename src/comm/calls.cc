#include "evenspan/comm/calls.h"

#include <utility>

#include "evenspan/core/error.h"
#include "evenspan/core/hash.h"

namespace evenspan::comm {

std::string to_string(const Call& call) {
  if (call.number == 0) return "no call so far";
  return join_text("call ", call.number, call.members.empty() ? "" : " of ", call.members, ", \"", call.operation, '"',
                   call.subject.empty() ? "" : " of ", call.subject);
}

std::string to_string(const std::vector<Rank>& ranks) {
  std::string text = ranks.size() == 1 ? "rank " : "ranks ";
  for (size_t begin = 0, end = 0; begin < ranks.size(); begin = end) {
    for (end = begin + 1; end < ranks.size() && ranks[end] == ranks[end - 1] + 1;) ++end;
    text += join_text(begin > 0 ? ", " : "", ranks[begin]);
    if (end - begin > 1) text += join_text("-", ranks[end - 1]);
  }
  return text;
}

Calls::Calls(uint64_t group, std::vector<Rank> members)
    : members_(std::move(members)),
      last_{std::make_shared<Call>(
          Call{.hash = group, .operation = {}, .subject = {}, .group = group, .members = to_string(members_)})} {}

bool Calls::begin(const std::string& operation, const std::string& subject) {
  const std::lock_guard lock(mutex_);
  if (depth_++ > 0) return false;
  const int64_t number = last_.back()->number + 1;
  Hasher hasher;
  hasher.add(last_.back()->hash);
  hasher.add(number);
  hasher.add(operation);
  hasher.add(subject);
  const Call& last = *last_.back();
  last_.push_back(
      std::make_shared<Call>(Call{number, hasher.state() >> 1, operation, subject, last.group, last.members}));
  if (last_.size() > kKept) last_.pop_front();
  has_transfers_ = false;
  return true;
}

void Calls::end() {
  const std::lock_guard lock(mutex_);
  --depth_;
}

std::shared_ptr<const Call> Calls::current() const {
  const std::lock_guard lock(mutex_);
  return last_.back();
}

std::shared_ptr<const Call> Calls::find(int64_t number) const {
  const std::lock_guard lock(mutex_);
  if (number < last_.front()->number || number > last_.back()->number || refused_.contains(number)) return nullptr;
  return last_[static_cast<size_t>(number - last_.front()->number)];
}

void Calls::start_transfers() {
  const std::lock_guard lock(mutex_);
  has_transfers_ = true;
}

bool Calls::has_transfers() const {
  const std::lock_guard lock(mutex_);
  return has_transfers_;
}

void Calls::refuse() {
  const std::lock_guard lock(mutex_);
  Call call = *last_.back();
  refused_.insert(call.number);
  if (last_.size() > 1) call.hash = last_[last_.size() - 2]->hash;
  last_.back() = std::make_shared<Call>(std::move(call));
}

bool Calls::refused(int64_t number) const {
  const std::lock_guard lock(mutex_);
  return refused_.contains(number);
}

}  // namespace evenspan::comm
