// What collectives must give on every backend, to the bit; the body of all ranks.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/sin.h>
#include <c10/util/BFloat16.h>
#include <c10/util/Half.h>
#include <gtest/gtest.h>

#include "ranks.h"

namespace evenspan::comm {

// Numbers of very different magnitude, so that sums in another order have other bits; the same wherever it is called.
inline at::Tensor test_tensor(int64_t seed, std::vector<int64_t> shape, at::ScalarType type) {
  int64_t numel = 1;
  for (int64_t extent : shape) numel *= extent;
  const at::Tensor steps = at::arange(numel, at::kDouble).add(seed * 1000 + 1);
  const at::Tensor values = at::sin(steps.mul(12.9898)).mul(at::sin(steps.mul(78.233)).mul(8).exp());
  return values.to(type).view(shape);
}

// The sum of the tensors in their order, an element at a time.
template <class Element, class Sum>
at::Tensor serial_sum(const std::vector<at::Tensor>& terms) {
  const at::Tensor result = at::empty_like(terms.front());
  for (int64_t i = 0; i < result.numel(); ++i) {
    Sum sum = static_cast<Sum>(terms.front().const_data_ptr<Element>()[i]);
    for (size_t r = 1; r < terms.size(); ++r) sum += static_cast<Sum>(terms[r].const_data_ptr<Element>()[i]);
    result.mutable_data_ptr<Element>()[i] = static_cast<Element>(sum);
  }
  return result;
}

inline at::Tensor serial_sum(const std::vector<at::Tensor>& terms) {
  switch (terms.front().scalar_type()) {
    case at::kFloat:
      return serial_sum<float, float>(terms);
    case at::kDouble:
      return serial_sum<double, double>(terms);
    case at::kBFloat16:
      return serial_sum<c10::BFloat16, float>(terms);
    case at::kHalf:
      return serial_sum<c10::Half, float>(terms);
    default:
      return serial_sum<int64_t, int64_t>(terms);
  }
}

inline void collectives_are_exact(const Communicator& communicator, c10::Device device, at::ScalarType type,
                                  std::vector<int64_t> shape) {
  const int64_t size = communicator.size();
  const int64_t rank = communicator.rank();
  const auto tensor = [&](int64_t seed) { return test_tensor(seed, shape, type).to(device); };
  const auto what = [&](const char* name) {
    return testing::Message() << name << " of " << type << at::IntArrayRef(shape) << " on " << device << ", rank "
                              << rank << " of " << size;
  };

  std::vector<at::Tensor> of_all;
  for (int64_t r = 0; r < size; ++r) of_all.push_back(test_tensor(r, shape, type));
  const at::Tensor mine = tensor(rank);
  EXPECT_TRUE(all_reduce(communicator, mine).cpu().equal(serial_sum(of_all))) << what("all_reduce");
  EXPECT_TRUE(mine.equal(tensor(rank))) << what("the input of all_reduce");

  const std::vector<at::Tensor> gathered = all_gather(communicator, mine);
  ASSERT_EQ(static_cast<int64_t>(gathered.size()), size);
  for (int64_t r = 0; r < size; ++r) EXPECT_TRUE(gathered[r].cpu().equal(of_all[r])) << what("all_gather");

  // Rank r sends to rank s the tensor of seed 10 r + s, with s more rows.
  const auto part = [&](int64_t from, int64_t to) {
    std::vector<int64_t> longer = shape;
    longer[0] += to;
    return test_tensor(10 * from + to, longer, type);
  };
  std::vector<at::Tensor> inputs;
  std::vector<at::Tensor> outputs;
  std::vector<at::Tensor> terms;
  for (int64_t r = 0; r < size; ++r) {
    inputs.push_back(part(rank, r).to(device));
    outputs.push_back(at::empty_like(inputs[rank < r ? rank : r]).resize_(part(r, rank).sizes()));
    terms.push_back(part(r, rank));
  }
  all_to_all(communicator, inputs, outputs);
  for (int64_t r = 0; r < size; ++r) EXPECT_TRUE(outputs[r].cpu().equal(part(r, rank))) << what("all_to_all");
  EXPECT_TRUE(reduce_scatter(communicator, inputs).cpu().equal(serial_sum(terms))) << what("reduce_scatter");

  for (int64_t root = 0; root < size; ++root) {
    const at::Tensor spread = mine.clone();
    broadcast(communicator, Rank(root), spread);
    EXPECT_TRUE(spread.cpu().equal(of_all[root])) << what("broadcast");
  }
}

inline void collectives_are_exact(const Communicator& communicator, c10::Device device = at::kCPU) {
  for (const at::ScalarType type : {at::kFloat, at::kDouble, at::kBFloat16, at::kHalf, at::kLong}) {
    collectives_are_exact(communicator, device, type, {0, 3});
    collectives_are_exact(communicator, device, type, {1});
    collectives_are_exact(communicator, device, type, {7, 13});
  }
}

}  // namespace evenspan::comm
