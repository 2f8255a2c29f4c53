#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <c10/core/GradMode.h>

#include "comm/transfers.h"
#include "evenspan/comm/communicator.h"
#include "evenspan/core/error.h"

// Each collective is a call of the communicator, or a part of the one under way.
//
// Costs, for P ranks and n bytes a rank; each step is one exchange:
//   barrier         log2 P steps, 1 byte each (dissemination)
//   all_gather      1 step, (P-1) n sent
//   all_to_all      1 step, what the other ranks get
//   reduce_scatter  1 step, what the other ranks get
//   all_reduce      2 steps, 2 (P-1)/P n sent
//   broadcast       log2 P steps, (P-1) n sent by all ranks together (binomial tree)
namespace evenspan::comm {
namespace {

at::Tensor plain(const at::Tensor& tensor) { return tensor.detach().contiguous(); }

// What ranks must have alike.
std::string type_and_shape(const at::Tensor& tensor) {
  return tensor.defined() ? join_text(tensor.scalar_type(), " ", tensor.sizes()) : "no tensor";
}

void check_count(const Communicator& communicator, size_t num_tensors, const char* what, const std::string& operation) {
  if (num_tensors != static_cast<size_t>(communicator.size())) {
    fail_invalid("[", operation, "] there is one ", what, " for each of the ", communicator.size(), " ranks, but rank ",
                 communicator.rank(), " gave ", num_tensors, "; give an empty tensor where there is nothing to send");
  }
}

// Narrow floats are added in float32 and rounded once; all else in its own type.
at::Tensor sum_in_order(const std::vector<at::Tensor>& terms) {
  const at::ScalarType type = terms.front().scalar_type();
  const bool narrow = type == at::kHalf || type == at::kBFloat16;
  at::Tensor sum = terms.front().to(narrow ? at::kFloat : type, /*non_blocking=*/false, /*copy=*/true);
  for (size_t i = 1; i < terms.size(); ++i) sum.add_(terms[i]);
  return sum.to(type);
}

// Sends `mine` to all other ranks and receives theirs into `all`; all[rank] is not touched.
void share(const Communicator& communicator, const at::Tensor& mine, const std::vector<at::Tensor>& all,
           const std::string& operation) {
  std::vector<Transfer> sends;
  std::vector<Transfer> receives;
  for (Rank peer{0}; peer < communicator.size(); ++peer.value) {
    if (peer == communicator.rank()) continue;
    sends.push_back({peer, mine});
    receives.push_back({peer, all[peer]});
  }
  communicator.exchange(std::move(sends), std::move(receives), operation)->wait();
}

}  // namespace

void barrier(const Communicator& communicator, const std::string& operation) {
  communicator.call(operation, "", [&] {
    const int32_t size = communicator.size();
    const at::Tensor sent = at::empty({1}, at::kByte).zero_();
    for (int32_t distance = 1; distance < size; distance *= 2) {
      const Rank to((communicator.rank() + distance) % size);
      const Rank from((communicator.rank() + size - distance) % size);
      communicator.exchange({{to, sent}}, {{from, at::empty({1}, at::kByte)}}, operation)->wait();
    }
  });
}

std::vector<at::Tensor> all_gather(const Communicator& communicator, const at::Tensor& tensor,
                                   const std::string& operation) {
  return communicator.call(operation, type_and_shape(tensor), [&] {
    const c10::AutoGradMode no_grad(false);
    const at::Tensor mine = plain(tensor);
    std::vector<at::Tensor> all;
    for (Rank rank{0}; rank < communicator.size(); ++rank.value) {
      all.push_back(rank == communicator.rank() ? mine.clone() : at::empty_like(mine));
    }
    if (communicator.size() > 1) share(communicator, mine, all, operation);
    return all;
  });
}

void all_to_all(const Communicator& communicator, const std::vector<at::Tensor>& inputs,
                const std::vector<at::Tensor>& outputs, const std::string& operation) {
  communicator.call(operation, "", [&] {
    check_count(communicator, inputs.size(), "input", operation);
    check_count(communicator, outputs.size(), "output", operation);
    const Rank rank = communicator.rank();
    for (const at::Tensor& output : outputs) {
      if (!output.is_contiguous()) {
        fail_invalid("[", operation, "] outputs are contiguous, but rank ", rank, " gave a strided one of shape ",
                     output.sizes(), "; pass tensors that own their rows");
      }
    }
    if (num_bytes(inputs[rank]) != num_bytes(outputs[rank])) {
      fail_invalid("[", operation, "] a rank gives itself what it takes from itself, but at rank ", rank,
                   " the input has ", num_bytes(inputs[rank]), " bytes and the output ", num_bytes(outputs[rank]),
                   "; give both the same size");
    }
    const c10::AutoGradMode no_grad(false);
    std::vector<Transfer> sends;
    std::vector<Transfer> receives;
    for (Rank peer{0}; peer < communicator.size(); ++peer.value) {
      if (peer == rank) continue;
      sends.push_back({peer, plain(inputs[peer])});
      receives.push_back({peer, outputs[peer]});
    }
    std::unique_ptr<Work> work;
    if (communicator.size() > 1) work = communicator.exchange(std::move(sends), std::move(receives), operation);
    flat_bytes(outputs[rank]).copy_(flat_bytes(plain(inputs[rank])));
    if (work) work->wait();
  });
}

at::Tensor reduce_scatter(const Communicator& communicator, const std::vector<at::Tensor>& inputs,
                          const std::string& operation) {
  return communicator.call(operation, "", [&] {
    check_count(communicator, inputs.size(), "input", operation);
    const c10::AutoGradMode no_grad(false);
    const Rank rank = communicator.rank();
    std::vector<at::Tensor> terms;
    std::vector<Transfer> sends;
    std::vector<Transfer> receives;
    for (Rank peer{0}; peer < communicator.size(); ++peer.value) {
      if (peer == rank) {
        terms.push_back(plain(inputs[rank]));
        continue;
      }
      terms.push_back(at::empty_like(plain(inputs[rank])));
      sends.push_back({peer, plain(inputs[peer])});
      receives.push_back({peer, terms.back()});
    }
    if (communicator.size() > 1) communicator.exchange(std::move(sends), std::move(receives), operation)->wait();
    return sum_in_order(terms);
  });
}

at::Tensor all_reduce(const Communicator& communicator, const at::Tensor& tensor, const std::string& operation) {
  return communicator.call(operation, type_and_shape(tensor), [&] {
    const c10::AutoGradMode no_grad(false);
    const at::Tensor mine = plain(tensor).view({tensor.numel()});
    if (communicator.size() == 1) return mine.clone().view(tensor.sizes());
    const auto chunks_of = [&](const at::Tensor& flat) {
      std::vector<at::Tensor> chunks;
      for (int64_t rank = 0; rank < communicator.size(); ++rank) {
        const int64_t begin = flat.numel() * rank / communicator.size();
        const int64_t end = flat.numel() * (rank + 1) / communicator.size();
        chunks.push_back(flat.narrow(0, begin, end - begin));
      }
      return chunks;
    };
    const at::Tensor reduced = reduce_scatter(communicator, chunks_of(mine), operation);
    const at::Tensor result = at::empty_like(mine);
    const std::vector<at::Tensor> chunks = chunks_of(result);
    chunks[communicator.rank()].copy_(reduced);
    share(communicator, reduced, chunks, operation);
    return result.view(tensor.sizes());
  });
}

void broadcast(const Communicator& communicator, Rank root, at::Tensor tensor, const std::string& operation) {
  communicator.call(operation, "", [&] {
    const int32_t size = communicator.size();
    if (root < 0 || root >= size) {
      fail_invalid("[", operation, "] the root is in [0, ", size, "), but rank ", communicator.rank(), " gave ", root,
                   "; number the ranks inside this communicator");
    }
    const c10::AutoGradMode no_grad(false);
    const at::Tensor data = plain(tensor);
    // Counted from the root, rank k hears from k without its highest bit, and then speaks to k plus each higher bit.
    const int32_t place = (communicator.rank() + size - root) % size;
    const auto rank_at = [&](int32_t other) { return Rank((other + root) % size); };
    int32_t bit = 1;
    while (bit <= place) bit *= 2;
    if (place != 0) communicator.exchange({}, {{rank_at(place - bit / 2), data}}, operation)->wait();
    std::vector<Transfer> sends;
    for (; place + bit < size; bit *= 2) sends.push_back({rank_at(place + bit), data});
    if (!sends.empty()) communicator.exchange(std::move(sends), {}, operation)->wait();
    if (place != 0 && !tensor.is_contiguous()) tensor.detach().copy_(data);
  });
}

}  // namespace evenspan::comm
