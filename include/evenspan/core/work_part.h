// How much of some work is done, told by the layers that do it, which have neither a clock nor output.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <utility>

namespace evenspan {

// A part of some work. Copies tell the same observer; one that is made without an observer tells nobody.
class WorkPart {
 public:
  // Gets how much of the whole is done, in [0, 1], from the thread that computes. Mostly it grows: parts that turn out
  // to be needless are left out.
  using Observer = std::function<void(double done)>;

  WorkPart() = default;
  explicit WorkPart(Observer observer) : observer_(std::make_shared<const Observer>(std::move(observer))) {}

  // The `index`-th of `count` equal parts of this one. REQUIRES: 0 <= index < count.
  WorkPart part(int64_t index, int64_t count) const {
    WorkPart out = *this;
    out.begin_ = at(index, count);
    out.end_ = at(index + 1, count);
    return out;
  }
  // `done` of `total` equal pieces of this part are done. REQUIRES: 0 <= done <= total, total > 0.
  void tell(int64_t done, int64_t total) const {
    if (observer_) (*observer_)(at(done, total));
  }

 private:
  double at(int64_t done, int64_t total) const {
    return begin_ + (end_ - begin_) * static_cast<double>(done) / static_cast<double>(total);
  }

  std::shared_ptr<const Observer> observer_;
  double begin_ = 0, end_ = 1;  // in the whole
};

}  // namespace evenspan
