#include "evenspan/train/optimizer.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>
#include <c10/core/GradMode.h>

#include <algorithm>
#include <cmath>
#include <numbers>
#include <utility>

#include "evenspan/core/error.h"
#include "evenspan/nn/decoder.h"

namespace evenspan::train {

double learning_rate_at(const OptimizerConfig& config, int64_t step, int64_t total_steps) {
  if (step <= config.warmup_steps) {
    return config.learning_rate * static_cast<double>(step) / static_cast<double>(config.warmup_steps);
  }
  const int64_t last = config.decay_steps > 0 ? config.decay_steps : total_steps;
  if (last <= config.warmup_steps) return config.learning_rate;
  const double done =
      std::min(1.0, static_cast<double>(step - config.warmup_steps) / static_cast<double>(last - config.warmup_steps));
  const double share = 0.5 * (1 + std::cos(std::numbers::pi * done));
  return config.min_learning_rate + (config.learning_rate - config.min_learning_rate) * share;
}

ShardedAdamW::ShardedAdamW(std::vector<nn::ParameterSpec> specs, at::ScalarType compute_type,
                           const OptimizerConfig& config, comm::Communicator communicator)
    : specs_(std::move(specs)),
      config_(config),
      communicator_(std::move(communicator)),
      master_type_(nn::accumulation_type(compute_type)) {
  for (const nn::ParameterSpec& spec : specs_) {
    offsets_.push_back(num_elements_);
    num_elements_ += spec.num_elements();
  }
  const int64_t ranks = communicator_.size();
  shard_ = (num_elements_ + ranks - 1) / ranks;
  begin_ = std::min(num_elements_, shard_ * communicator_.rank().value);
  end_ = std::min(num_elements_, begin_ + shard_);
  flat_ = at::zeros({shard_ * ranks}, compute_type);
  masters_ = at::zeros({end_ - begin_}, master_type_);
  first_ = at::zeros_like(masters_);
  second_ = at::zeros_like(masters_);
  decay_ = at::zeros_like(masters_);
  for (size_t i = 0; i < specs_.size(); ++i) {
    parameters_.add(specs_[i].name, slice(flat_, i).detach());
    const int64_t from = std::max(begin_, offsets_[i]);
    const int64_t to = std::min(end_, offsets_[i] + specs_[i].num_elements());
    if (from < to && specs_[i].decays()) decay_.narrow(0, from - begin_, to - from).fill_(config_.weight_decay);
  }
  nn::require_gradients(parameters_);
}

at::Tensor ShardedAdamW::slice(const at::Tensor& flat, size_t i) const {
  return flat.narrow(0, offsets_[i], specs_[i].num_elements()).view(specs_[i].shape);
}

int64_t ShardedAdamW::state_bytes() const { return 3 * static_cast<int64_t>(masters_.nbytes()); }

// The new values of all ranks' masters, in the compute type, written under the leaves.
void ShardedAdamW::publish() {
  const c10::AutoGradMode no_gradients(false);
  at::Tensor own = at::zeros({shard_}, flat_.options());
  own.narrow(0, 0, end_ - begin_).copy_(masters_);
  const std::vector<at::Tensor> shards = comm::all_gather(communicator_, own, "optimizer: gather parameters");
  for (size_t r = 0; r < shards.size(); ++r) flat_.narrow(0, static_cast<int64_t>(r) * shard_, shard_).copy_(shards[r]);
}

void ShardedAdamW::set_masters(const at::Tensor& values) {
  EVENSPAN_CHECK_OP(values.numel(), ==, end_ - begin_);
  masters_.copy_(values);
  publish();
}

// Backward adds in the type of the computation, in place: nothing is left to do where that is the master type.
void ShardedAdamW::accumulate() {
  if (flat_.scalar_type() != master_type_) take_gradients();
}

void ShardedAdamW::take_gradients() {
  const c10::AutoGradMode no_gradients(false);
  const bool is_first = !gradients_.defined();
  if (is_first) gradients_ = at::zeros({flat_.numel()}, master_type_);
  for (size_t i = 0; i < specs_.size(); ++i) {
    const at::Tensor& parameter = parameters_.items()[i].second;
    if (!parameter.grad().defined()) continue;
    const at::Tensor sum = slice(gradients_, i);
    is_first ? sum.copy_(parameter.grad()) : sum.add_(parameter.grad());
    parameter.mutable_grad() = at::Tensor();
  }
}

// The norm of all ranks' parts. In the same gather the ranks see that they made the same calls: where messages have no
// tags (NCCL), those of layers that one rank calls in another order could have been mixed up without a word.
double ShardedAdamW::gradient_norm(const at::Tensor& part) const {
  const uint64_t calls = communicator_.call_hash() >> 11;  // 52 bits, which a float64 holds
  at::Tensor own = at::empty({2}, at::kDouble);
  own[0] = part.to(at::kDouble).square().sum();
  own[1] = static_cast<double>(calls);
  double square = 0;
  int64_t rank = 0;
  for (const at::Tensor& of_rank : comm::all_gather(communicator_, own, "optimizer: gradient norm")) {
    const auto* row = of_rank.const_data_ptr<double>();
    if (row[1] != static_cast<double>(calls)) {
      fail(ErrorKind::communication, "[optimizer] all ranks make the same calls in the same order, but ranks ",
           communicator_.rank(), " and ", rank,
           " made others before this step; look for a layer or batch that one of them leaves out or calls earlier");
    }
    square += row[0];
    ++rank;
  }
  return std::sqrt(square);
}

double ShardedAdamW::step(double learning_rate) {
  const c10::AutoGradMode no_gradients(false);
  at::Tensor gradient;
  take_gradients();
  {
    const at::Tensor flat = std::exchange(gradients_, at::Tensor());
    gradient =
        comm::reduce_scatter(communicator_, flat.split(shard_), "optimizer: sum gradients").narrow(0, 0, end_ - begin_);
  }
  const double norm = gradient_norm(gradient);
  if (!std::isfinite(norm)) {
    fail(ErrorKind::resource, "[optimizer] gradients must be finite, their global norm is ", norm,
         "; lower optimizer.learning_rate or go on from an earlier checkpoint");
  }
  if (config_.clip_norm > 0 && norm > config_.clip_norm) gradient = gradient * (config_.clip_norm / norm);

  ++num_updates_;
  const auto t = static_cast<double>(num_updates_);
  first_.mul_(config_.beta1).add_(gradient, 1 - config_.beta1);
  second_.mul_(config_.beta2).addcmul_(gradient, gradient, 1 - config_.beta2);
  // w <- w - rate (m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + epsilon) - rate decay w
  const at::Tensor root = (second_ / (1 - std::pow(config_.beta2, t))).sqrt_().add_(config_.epsilon);
  masters_.addcmul_(masters_, decay_, -learning_rate);
  masters_.addcdiv_(first_, root, -learning_rate / (1 - std::pow(config_.beta1, t)));
  publish();
  return norm;
}

ShardedAdamW::State ShardedAdamW::gather_state() const {
  const c10::AutoGradMode no_gradients(false);
  const auto gather = [&](const at::Tensor& own) {
    at::Tensor padded = at::zeros({shard_}, own.options());
    padded.narrow(0, 0, own.numel()).copy_(own);
    return at::cat(comm::all_gather(communicator_, padded, "checkpoint: gather state")).narrow(0, 0, num_elements_);
  };
  return {gather(masters_), gather(first_), gather(second_), num_updates_};
}

void ShardedAdamW::restore(const State& state) {
  const auto take = [&](const at::Tensor& full, at::Tensor& own) {
    EVENSPAN_CHECK_OP(full.numel(), ==, num_elements_);
    own.copy_(full.narrow(0, begin_, end_ - begin_));
  };
  take(state.masters, masters_);
  take(state.first_moments, first_);
  take(state.second_moments, second_);
  num_updates_ = state.num_updates;
  publish();
}

}  // namespace evenspan::train
