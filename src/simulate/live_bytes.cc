#include "simulate/live_bytes.h"

#include <algorithm>
#include <map>

#include "plan/visit.h"

namespace evenspan::simulate {
namespace {

using plan::Block;

// A set of bytes as disjoint ranges.
class ByteSet {
 public:
  void insert(int64_t begin, int64_t end) {
    auto at = ranges_.upper_bound(begin);
    if (at != ranges_.begin() && std::prev(at)->second >= begin) --at;
    while (at != ranges_.end() && at->first <= end) {
      begin = std::min(begin, at->first);
      end = std::max(end, at->second);
      size_ -= at->second - at->first;
      at = ranges_.erase(at);
    }
    ranges_[begin] = end;
    size_ += end - begin;
  }
  void erase(int64_t begin, int64_t end) {
    auto at = ranges_.upper_bound(begin);
    if (at != ranges_.begin() && std::prev(at)->second > begin) --at;
    while (at != ranges_.end() && at->first < end) {
      const auto [first, last] = *at;
      at = ranges_.erase(at);
      size_ -= last - first;
      if (first < begin) ranges_[first] = begin;
      if (last > end) ranges_[end] = last;
      size_ += std::max<int64_t>(0, begin - first) + std::max<int64_t>(0, last - end);
    }
  }
  int64_t size() const { return size_; }

 private:
  std::map<int64_t, int64_t> ranges_;  // begin -> end
  int64_t size_ = 0;
};

int64_t end_of(const Block& block, const plan::AttentionShape& shape) {
  const int64_t elements = (num_rows(block) - 1) * block.row_stride + block.heads.size() * width(block.tensor, shape);
  return block.offset_bytes + elements * element_bytes(block, shape);
}

}  // namespace

std::vector<int64_t> count_live_bytes(const plan::Phase& program, const plan::AttentionShape& shape) {
  const auto& operations = program.operations;
  const auto last = static_cast<int64_t>(operations.size()) - 1;
  std::vector<std::vector<const plan::Operation*>> completed(operations.size());  // [operation] what it waits for
  std::map<plan::Event, int64_t> first_wait;
  for (int64_t i = last; i >= 0; --i) {
    const plan::Operation& operation = operations[static_cast<size_t>(i)];
    for (const plan::Event event : operation.waits) first_wait[event] = i;
    if (operation.signals == plan::kNoEvent) continue;
    const auto wait = first_wait.find(operation.signals);
    completed[static_cast<size_t>(wait == first_wait.end() ? last : wait->second)].push_back(&operation);
  }

  ByteSet live;
  std::vector<int64_t> counted(operations.size(), 0);
  const auto keep = [&](const Block& block) {
    if (block.buffer == plan::BufferId::arena) live.insert(block.offset_bytes, end_of(block, shape));
  };
  for (int64_t i = last; i >= 0; --i) {
    const auto at = static_cast<size_t>(i);
    for (const plan::Operation* started : completed[at]) {
      plan::for_each_block(*started, shape, [&](const Block& block, plan::Access access) {
        if (access == plan::Access::read) keep(block);
      });
    }
    plan::for_each_block(operations[at], shape, [&](const Block& block, plan::Access) { keep(block); });
    counted[at] = live.size();
    plan::for_each_block(operations[at], shape, [&](const Block& block, plan::Access access) {
      if (access != plan::Access::write || block.buffer != plan::BufferId::arena) return;
      if (is_dense(block, shape)) live.erase(block.offset_bytes, end_of(block, shape));
    });
    plan::for_each_block(operations[at], shape, [&](const Block& block, plan::Access access) {
      if (access != plan::Access::write) keep(block);
    });
  }
  return counted;
}

}  // namespace evenspan::simulate
