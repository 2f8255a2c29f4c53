#include "comm/board.h"

#include <torch/csrc/distributed/c10d/PrefixStore.hpp>

#include <chrono>
#include <exception>
#include <thread>
#include <utility>

namespace evenspan::comm {
namespace {

constexpr const char* kFailureKey = "failure";
constexpr const char* kSeenKey = "seen";
constexpr const char* kRefusalsKey = "refusals";
constexpr std::chrono::milliseconds kLongestStay{200};
constexpr std::chrono::milliseconds kStayStep{20};

std::string waiting_key(Rank rank) { return "waiting/" + std::to_string(rank); }

std::string refusal_key(int64_t number) { return "refusal/" + std::to_string(number); }

std::string first_line(const char* text) {
  const std::string all(text);
  return all.substr(0, all.find('\n'));
}

}  // namespace

Board::Board(const c10::intrusive_ptr<c10d::Store>& store) {
  if (!store) {
    trouble_ = "the group has no store, so ranks that wait for others than the one to blame only see a time-out";
    return;
  }
  c10::intrusive_ptr<c10d::Store> own;
  try {
    own = store->clone();
  } catch (const std::exception&) {
    own = store;  // one that cannot be cloned, a Python class for instance
  }
  store_ = c10::make_intrusive<c10d::PrefixStore>("evenspan", own);
}

template <class Call>
void Board::ask(const Call& call) {
  if (!store_) return;
  try {
    call();
  } catch (const std::exception& e) {
    store_.reset();
    trouble_ =
        "the group's store is gone, so its host, usually rank 0, probably died first (" + first_line(e.what()) + ")";
  }
}

std::optional<std::string> Board::get(const std::string& key) {
  if (!store_->check({key})) return {};  // `get` alone would wait for the key
  return store_->get_to_str(key);
}

Failure Board::post(const Failure& failure) {
  const std::lock_guard lock(mutex_);
  std::optional<Failure> standing;
  ask([&] { standing = read_failure(store_->compareSet(kFailureKey, "", write_failure(failure))); });
  return standing.value_or(failure);
}

std::optional<Failure> Board::failure() {
  const std::lock_guard lock(mutex_);
  std::optional<std::string> text;
  ask([&] { text = get(kFailureKey); });
  return text ? read_failure(*text) : std::nullopt;
}

void Board::post(const Refusal& refusal) {
  const std::lock_guard lock(mutex_);
  ask([&] { store_->set(refusal_key(store_->add(kRefusalsKey, 1)), write_refusal(refusal)); });
}

std::vector<Refusal> Board::refusals() {
  const std::lock_guard lock(mutex_);
  std::vector<Refusal> found;
  ask([&] {
    // One that is counted and not there yet is returned next time, with all after it.
    while (const auto text = get(refusal_key(num_refusals_ + 1))) {
      ++num_refusals_;
      if (const auto refusal = read_refusal(*text)) found.push_back(*refusal);
    }
  });
  return found;
}

void Board::publish(Rank rank, const std::optional<Waiting>& waiting) {
  const std::lock_guard lock(mutex_);
  ask([&] { store_->set(waiting_key(rank), waiting ? write_waiting(*waiting) : "-"); });
}

std::optional<Waiting> Board::waiting(Rank rank) {
  const std::lock_guard lock(mutex_);
  std::optional<std::string> text;
  ask([&] { text = get(waiting_key(rank)); });
  return text ? read_waiting(*text) : std::nullopt;
}

void Board::acknowledge(Rank rank, int32_t size) {
  const auto deadline = std::chrono::steady_clock::now() + (rank == 0 ? 3 * kLongestStay : kLongestStay);
  int64_t num_new = 1;
  while (std::chrono::steady_clock::now() < deadline) {
    {
      const std::lock_guard lock(mutex_);
      if (num_new == 1 && std::exchange(acknowledged_, true)) return;
      int64_t num_seen = size;  // without a store there is nobody to stay for
      ask([&] { num_seen = store_->add(kSeenKey, num_new); });
      if (num_seen >= size) return;
    }
    num_new = 0;
    std::this_thread::sleep_for(kStayStep);
  }
}

std::string Board::trouble() {
  const std::lock_guard lock(mutex_);
  return trouble_;
}

}  // namespace evenspan::comm
