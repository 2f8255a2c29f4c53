// The c10d communicator for test processes in Python: torch.classes.evenspan_test.Communicator.
// Target: shared library `evenspan_process_test_ops` linked to evenspan_comm, loaded by torch.classes.load_library.
#include <ATen/ops/empty_like.h>
#include <torch/custom_class.h>
#include <torch/library.h>

#include "evenspan/comm/communicator.h"
#include "evenspan/core/error.h"

namespace evenspan::comm {
namespace {

using Tensors = std::vector<at::Tensor>;

Tensors run_collective(const Communicator& communicator, const std::string& name, const Tensors& inputs) {
  if (name == "all_gather") return all_gather(communicator, inputs.front());
  if (name == "reduce_scatter") return {reduce_scatter(communicator, inputs)};
  if (name == "all_reduce") return {all_reduce(communicator, inputs.front())};
  if (name == "all_to_all") {
    Tensors outputs;
    for (const at::Tensor& input : inputs) outputs.push_back(at::empty_like(input));
    all_to_all(communicator, inputs, outputs);
    return outputs;
  }
  if (name == "broadcast") {
    at::Tensor tensor = inputs.front().clone();
    broadcast(communicator, Rank(communicator.size() - 1), tensor);
    return {tensor};
  }
  fail_invalid("[run_collective] the collective is a known one, but this is \"", name, "\"; see ops.cc");
}

// What rank `rank` of the threads backend gets; `inputs` are those of all ranks, one after the other.
Tensors threads_collective(const std::string& name, const Tensors& inputs, int64_t num_ranks, int64_t rank) {
  const int64_t per_rank = static_cast<int64_t>(inputs.size()) / num_ranks;
  std::vector<Tensors> results(num_ranks);
  run_threads(static_cast<int32_t>(num_ranks), [&](const Communicator& communicator) {
    const auto begin = inputs.begin() + communicator.rank() * per_rank;
    results[communicator.rank()] = run_collective(communicator, name, Tensors(begin, begin + per_rank));
  });
  return results[rank];
}

class Handle : public torch::CustomClassHolder {
 public:
  Handle(const std::string& group_name, int64_t timeout_ms)
      : Handle(make_c10d_communicator(group_name, {std::chrono::milliseconds(timeout_ms)})) {}
  explicit Handle(Communicator communicator) : communicator_(std::move(communicator)) {}

  int64_t rank() { return communicator_.rank(); }
  int64_t size() { return communicator_.size(); }
  c10::intrusive_ptr<Handle> split(const std::vector<int64_t>& members) {
    std::vector<Rank> ranks;
    for (const int64_t member : members) ranks.emplace_back(member);
    return c10::make_intrusive<Handle>(communicator_.split(ranks));
  }
  void synchronize() { barrier(communicator_); }
  void abort(const std::string& operation, const std::string& reason) { communicator_.abort(operation, reason); }
  Tensors collective(const std::string& name, const Tensors& inputs) {
    return run_collective(communicator_, name, inputs);
  }

  // Starts and waits. Sends `sent[i]` to rank `to[i]` and fills `received[i]` from rank `from[i]`.
  void exchange(std::vector<int64_t> to, Tensors sent, std::vector<int64_t> from, Tensors received,
                std::string operation) {
    std::vector<Transfer> sends;
    std::vector<Transfer> receives;
    for (size_t i = 0; i < to.size(); ++i) sends.push_back({Rank(to[i]), sent[i]});
    for (size_t i = 0; i < from.size(); ++i) receives.push_back({Rank(from[i]), received[i]});
    communicator_.exchange(std::move(sends), std::move(receives), operation)->wait();
  }

 private:
  const Communicator communicator_;
};

}  // namespace

TORCH_LIBRARY(evenspan_test, library) {
  library.class_<Handle>("Communicator")
      .def(torch::init<std::string, int64_t>())
      .def("rank", &Handle::rank)
      .def("size", &Handle::size)
      .def("split",
           [](const c10::intrusive_ptr<Handle>& self, std::vector<int64_t> members) { return self->split(members); })
      .def("synchronize", &Handle::synchronize)
      .def("abort", &Handle::abort)
      .def("collective", [](const c10::intrusive_ptr<Handle>& self, std::string name,
                            Tensors inputs) { return self->collective(std::move(name), std::move(inputs)); })
      .def("exchange", &Handle::exchange);
  library.def("threads_collective(str name, Tensor[] inputs, int num_ranks, int rank) -> Tensor[]",
              [](c10::string_view name, std::vector<at::Tensor> inputs, int64_t num_ranks, int64_t rank) {
                return threads_collective(std::string(name), inputs, num_ranks, rank);
              });
}

}  // namespace evenspan::comm
