#include "comm/transfers.h"

#include "evenspan/core/error.h"

namespace evenspan::comm {
namespace {

void check(Rank rank, int32_t size, const Transfer& transfer, const char* verb, const std::string& operation) {
  if (transfer.peer < 0 || transfer.peer >= size) {
    fail_invalid("[", operation, "] peers are in [0, ", size, "), but rank ", rank, " ", verb, " rank ", transfer.peer,
                 "; number the ranks inside this communicator");
  }
  if (transfer.peer == rank) {
    fail_invalid("[", operation, "] a rank sends to others only, but rank ", rank, " ", verb,
                 " itself; copy inside the rank instead");
  }
  if (!transfer.data.defined() || !transfer.data.is_contiguous() || transfer.data.is_conj() || transfer.data.is_neg()) {
    fail_invalid("[", operation, "] transfers take contiguous tensors, but rank ", rank, " ", verb, " rank ",
                 transfer.peer, " with ",
                 transfer.data.defined() ? "a strided or lazily conjugated one" : "an undefined one",
                 "; pass tensor.contiguous()");
  }
}

}  // namespace

void check_transfers(Rank rank, int32_t size, const std::vector<Transfer>& sends, const std::vector<Transfer>& receives,
                     const std::string& operation) {
  for (const Transfer& transfer : sends) check(rank, size, transfer, "sends to", operation);
  for (const Transfer& transfer : receives) check(rank, size, transfer, "receives from", operation);
}

void check_timeout(std::chrono::milliseconds timeout, const std::string& operation) {
  if (timeout < std::chrono::milliseconds(1) || timeout > std::chrono::hours(24 * 365)) {
    fail_invalid("[", operation, "] time-outs are between 1 ms and a year, but this one is ", timeout.count(),
                 " ms; the default suits most machines");
  }
}

int64_t num_bytes(const at::Tensor& tensor) { return tensor.numel() * tensor.element_size(); }

at::Tensor flat_bytes(const at::Tensor& tensor) { return tensor.detach().view({tensor.numel()}).view(at::kByte); }

}  // namespace evenspan::comm
