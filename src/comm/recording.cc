#include <numeric>

#include "comm/transfers.h"
#include "evenspan/comm/communicator.h"

namespace evenspan::comm {
namespace {

class RecordingBackend : public Backend {
 public:
  RecordingBackend(Communicator inner, std::shared_ptr<Recorded> recorded)
      : inner_(std::move(inner)), recorded_(std::move(recorded)) {}

  Rank rank() const override { return inner_.rank(); }
  int32_t size() const override { return inner_.size(); }

  std::unique_ptr<Work> exchange(std::vector<Transfer> sends, std::vector<Transfer> receives,
                                 const std::string& operation, const std::shared_ptr<Calls>& calls) override {
    std::vector<Recorded::Item> items;
    for (const Transfer& send : sends) {
      if (send.data.defined() && send.data.numel() > 0) items.push_back({operation, send.peer, num_bytes(send.data)});
    }
    auto work = inner_.backend()->exchange(std::move(sends), std::move(receives), operation, calls);
    recorded_->sends.insert(recorded_->sends.end(), items.begin(), items.end());
    ++recorded_->num_exchanges;
    return work;
  }

  void abort(const std::string& operation, const std::string& reason) noexcept override {
    inner_.abort(operation, reason);
  }
  void refuse(const std::string& operation, const std::string& reason, Calls& calls) noexcept override {
    inner_.backend()->refuse(operation, reason, calls);
  }
  const std::shared_ptr<Calls>& calls() override { return inner_.backend()->calls(); }

 private:
  const Communicator inner_;
  const std::shared_ptr<Recorded> recorded_;
};

}  // namespace

int64_t Recorded::sent_bytes() const {
  return std::accumulate(sends.begin(), sends.end(), int64_t{0},
                         [](int64_t sum, const Item& item) { return sum + item.num_bytes; });
}

Communicator make_recording_communicator(Communicator inner, std::shared_ptr<Recorded> recorded) {
  return Communicator(std::make_shared<RecordingBackend>(std::move(inner), std::move(recorded)));
}

}  // namespace evenspan::comm
