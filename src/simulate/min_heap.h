// A heap whose least item is taken first.
#pragma once

#include <algorithm>
#include <cstddef>
#include <utility>
#include <vector>

namespace evenspan::simulate {

// Four children a node: a simulation takes as many items as it puts in, and half as many levels are half as many cache
// lines.
template <class T, class Less>
class MinHeap {
 public:
  bool empty() const { return items_.empty(); }
  size_t size() const { return items_.size(); }
  const T& top() const { return items_.front(); }

  void push(const T& item) {
    size_t at = items_.size();
    items_.push_back(item);
    while (at > 0 && Less()(item, items_[(at - 1) / kChildren])) {
      items_[at] = items_[(at - 1) / kChildren];
      at = (at - 1) / kChildren;
    }
    items_[at] = item;
  }

  // REQUIRES: not empty.
  void pop() {
    const T last = items_.back();
    items_.pop_back();
    if (items_.empty()) return;
    size_t at = 0;
    for (;;) {
      const size_t first = kChildren * at + 1;
      if (first >= items_.size()) break;
      size_t least = first;
      const size_t end = std::min(first + kChildren, items_.size());
      for (size_t child = first + 1; child < end; ++child) {
        if (Less()(items_[child], items_[least])) least = child;
      }
      if (!Less()(items_[least], last)) break;
      items_[at] = items_[least];
      at = least;
    }
    items_[at] = last;
  }

 private:
  static constexpr size_t kChildren = 4;
  std::vector<T> items_;
};

}  // namespace evenspan::simulate
