#include "evenspan/plan/plan_cache.h"

#include <algorithm>
#include <bit>
#include <condition_variable>
#include <deque>
#include <exception>
#include <list>
#include <mutex>
#include <thread>
#include <utility>

#include "evenspan/core/error.h"

namespace evenspan::plan {
namespace {

bool same(const Request& a, const Request& b) {
  return a.documents.all() == b.documents.all() && a.shape == b.shape && a.topology == b.topology && a.cost == b.cost &&
         a.options == b.options;
}

}  // namespace

uint64_t hash_of(const Request& request) {
  uint64_t state = 0;
  const auto add = [&state](uint64_t value) {
    state = (state ^ value) * 0x9e3779b97f4a7c15ULL;
    state ^= state >> 29;
  };
  const auto whole = [&add](int64_t value) { add(static_cast<uint64_t>(value)); };
  const auto real = [&add](double value) { add(std::bit_cast<uint64_t>(value)); };
  for (const Document& document : request.documents.all()) {
    whole(document.length);
    whole(static_cast<int64_t>(document.mask.kind));
    whole(document.mask.extent);
  }
  for (const int64_t value :
       {int64_t{request.shape.num_heads}, int64_t{request.shape.num_kv_heads}, int64_t{request.shape.head_dim},
        static_cast<int64_t>(request.shape.element), int64_t{request.topology.num_ranks}}) {
    whole(value);
  }
  for (const Level& level : request.topology.levels) {
    whole(level.group_size);
    real(level.latency_seconds);
    real(level.bytes_per_second);
  }
  real(request.cost.pair_seconds);
  real(request.cost.token_seconds);
  for (const char c : request.options.strategy) whole(c);
  real(request.options.token_slack);
  whole(request.options.ranks_per_group);
  whole(request.options.stripe_tokens);
  whole(request.options.memory_budget_bytes);
  return state;
}

class PlanCache::State {
 public:
  State(Make make, size_t capacity) : make_(std::move(make)), capacity_(capacity) { EVENSPAN_CHECK_GE(capacity, 1u); }

  ~State() {
    {
      const std::lock_guard lock(mutex_);
      stops_ = true;
    }
    changed_.notify_all();
    if (thread_.joinable()) thread_.join();
  }

  void prefetch(const Request& request) {
    const uint64_t hash = hash_of(request);
    {
      const std::lock_guard lock(mutex_);
      if (const auto entry = find(hash, request)) {
        if (entry->plans_are_there() && !entry->asked) ++counts_.hits;
        entry->asked = true;
        return;
      }
      const auto entry = std::make_shared<Entry>(hash, request);
      entry->asked = true;
      entries_.push_front(entry);
      waiting_.push_back(entry);
      if (!thread_.joinable()) thread_ = std::thread([this] { run(); });
    }
    changed_.notify_all();
  }

  LayerPlans get(const Request& request) {
    const uint64_t hash = hash_of(request);
    std::unique_lock lock(mutex_);
    auto entry = find(hash, request);
    if (entry == nullptr) {
      ++counts_.waits;
      entry = std::make_shared<Entry>(hash, request);
      entries_.push_front(entry);
      lock.unlock();
      make(entry.get());
      lock.lock();
      finish(entry, /*ahead=*/false);
    } else if (!entry->done) {
      ++counts_.waits;
      changed_.wait(lock, [&entry] { return entry->done; });
    } else {
      ++counts_.ready;
      if (entry->plans_are_there() && !entry->asked) ++counts_.hits;
    }
    entry->asked = false;
    entries_.remove(entry);
    if (entry->error) std::rethrow_exception(entry->error);
    entries_.push_front(entry);
    drop_oldest();
    return entry->plans;
  }

  void reserve(size_t capacity) {
    const std::lock_guard lock(mutex_);
    capacity_ = std::max(capacity_, capacity);
  }

  Counts counts() const {
    const std::lock_guard lock(mutex_);
    return counts_;
  }

 private:
  struct Entry {
    Entry(uint64_t its_hash, const Request& its_request) : hash(its_hash), request(its_request) {}
    const uint64_t hash;
    const Request request;
    LayerPlans plans;
    std::exception_ptr error;
    bool done = false;
    bool asked = false;  // by a prefetch that no get() has followed

    bool plans_are_there() const { return done && !error; }
  };

  std::shared_ptr<Entry> find(uint64_t hash, const Request& request) const {
    for (const auto& entry : entries_) {
      if (entry->hash == hash && same(entry->request, request)) return entry;
    }
    return nullptr;
  }

  // Outside the lock: nobody reads plans and error before `done`.
  void make(Entry* entry) {
    try {
      entry->plans = make_(entry->request);
    } catch (...) {
      entry->error = std::current_exception();
    }
  }

  void finish(const std::shared_ptr<Entry>& entry, bool ahead) {
    entry->done = true;
    if (!entry->error) {
      ++counts_.made;
      counts_.made_ahead += ahead ? 1 : 0;
    }
    entries_.remove(entry);
    entries_.push_front(entry);
    drop_oldest();
    changed_.notify_all();
  }

  void drop_oldest() {
    size_t kept = 0;
    for (auto at = entries_.begin(); at != entries_.end();) {
      const bool drops = (*at)->done && ++kept > capacity_;
      at = drops ? entries_.erase(at) : std::next(at);
    }
  }

  void run() {
    std::unique_lock lock(mutex_);
    while (true) {
      changed_.wait(lock, [this] { return stops_ || !waiting_.empty(); });
      if (stops_) return;
      const auto entry = waiting_.front();
      waiting_.pop_front();
      lock.unlock();
      make(entry.get());
      lock.lock();
      finish(entry, /*ahead=*/true);
    }
  }

  const Make make_;
  mutable std::mutex mutex_;
  size_t capacity_;
  std::condition_variable changed_;
  std::list<std::shared_ptr<Entry>> entries_;   // the one used last first; few
  std::deque<std::shared_ptr<Entry>> waiting_;  // to be made in the background
  Counts counts_;
  bool stops_ = false;
  std::thread thread_;  // last: it uses all of the above
};

PlanCache::PlanCache(Make make, size_t capacity) : state_(std::make_unique<State>(std::move(make), capacity)) {}
PlanCache::~PlanCache() = default;
void PlanCache::prefetch(const Request& request) { state_->prefetch(request); }
LayerPlans PlanCache::get(const Request& request) { return state_->get(request); }
void PlanCache::reserve(size_t capacity) { state_->reserve(capacity); }
PlanCache::Counts PlanCache::counts() const { return state_->counts(); }

}  // namespace evenspan::plan
