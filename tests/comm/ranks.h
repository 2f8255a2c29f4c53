// Bodies of ranks for the tests of communicators.
#pragma once

#include <ATen/Context.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/full.h>

#include <chrono>
#include <functional>
#include <string>
#include <vector>

#include "evenspan/comm/communicator.h"

namespace evenspan::comm {

using Body = std::function<void(const Communicator&)>;

// The end of what a rank is told that goes on after its group has failed.
constexpr const char* kEnded = "; the group ended with that, before this call: end all ranks and start them anew";

// The text of what `call` throws; empty if it returns.
inline std::string error_of(const std::function<void()>& call) {
  try {
    call();
  } catch (const std::exception& e) {
    return e.what();
  }
  return {};
}

// The text of what each rank's body throws, by rank. Such a rank returns normally to run_threads and aborts nobody.
inline std::vector<std::string> errors_of(int32_t num_ranks, const Body& body, CommunicatorOptions options = {}) {
  std::vector<std::string> errors(num_ranks);
  run_threads(
      num_ranks,
      [&](const Communicator& communicator) { errors[communicator.rank()] = error_of([&] { body(communicator); }); },
      options);
  return errors;
}

inline Rank next(const Communicator& communicator) { return Rank((communicator.rank() + 1) % communicator.size()); }
inline Rank previous(const Communicator& communicator) {
  return Rank((communicator.rank() + communicator.size() - 1) % communicator.size());
}

inline at::Tensor filled(int64_t num_elements, double value, c10::Device device = at::kCPU) {
  return at::full({num_elements}, value, at::TensorOptions(at::kFloat).device(device));
}

// The CPU and, where there is one, a CUDA device.
inline std::vector<c10::Device> test_devices() {
  std::vector<c10::Device> devices{at::kCPU};
  if (at::hasCUDA()) devices.emplace_back(at::kCUDA, 0);
  return devices;
}

class Stopwatch {
 public:
  double seconds() const { return std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count(); }

 private:
  const std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

}  // namespace evenspan::comm
