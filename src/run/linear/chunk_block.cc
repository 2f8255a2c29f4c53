#include "run/linear/chunk_block.h"

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>

#include <algorithm>
#include <utility>

#include "run/linear/chunk_products.h"

namespace evenspan::run::chunked {
namespace {

constexpr int64_t kDiagonalDeltaChunkTokens = 32;  // the systems and the second reader cost more in longer chunks
// Of a block, for each thread: enough for a batch of products, while their operands stay in the processor's cache.
constexpr int64_t kBlockRows = 1024;    // rows times heads
constexpr int64_t kBlockMatrices = 32;  // chunks times heads

GateKind kind_of(const at::Tensor& gate) {
  if (!gate.defined()) return GateKind::none;
  return gate.dim() == 3 ? GateKind::diagonal : GateKind::scalar;
}

}  // namespace

at::Tensor& fit(at::Tensor* tensor, at::IntArrayRef sizes, const at::TensorOptions& options) {
  if (!tensor->defined()) {
    *tensor = at::empty(sizes, options);
  } else if (tensor->sizes() != sizes) {
    tensor->resize_(sizes);
  }
  return *tensor;
}

int64_t chunk_tokens_for(const LinearOperands& operands, int64_t most) {
  const bool short_chunks = kind_of(operands.gate) == GateKind::diagonal && operands.beta.defined();
  return short_chunks ? std::min(most, kDiagonalDeltaChunkTokens) : most;
}

BlockWork::BlockWork(const LinearOperands& operands, int64_t chunk_tokens, int64_t state_dim)
    : operands_(operands),
      chunk_tokens_(chunk_tokens),
      rows_(chunk_tokens),
      heads_(operands.key.size(1)),
      key_dim_(operands.key.size(2)),
      state_dim_(state_dim),
      options_(operands.key.options().dtype(operands.key.scalar_type() == at::kDouble ? at::kDouble : at::kFloat)) {
  decays.kind = kind_of(operands.gate);
  const int64_t matrices = at::get_num_threads() * std::min(kBlockMatrices, kBlockRows / chunk_tokens_);
  block_chunks_ = std::max<int64_t>(1, matrices / heads_);
  query.itself = true;
}

std::vector<ChunkBlock> BlockWork::blocks(const std::vector<RowRange>& segments) const {
  return blocks_of(segments, chunk_tokens_, block_chunks_);
}

at::Tensor& BlockWork::fitted(at::Tensor* tensor, int64_t rows, int64_t columns) const {
  return fit(tensor, {matrices_, rows, columns}, options_);
}

void BlockWork::fit_decays() {
  decays.gate = operands_.gate;
  if (decays.kind == GateKind::none) return;
  if (decays.kind == GateKind::scalar) {
    fit(&decays.sums, {matrices_, rows_}, options_.dtype(at::kDouble));
    for (at::Tensor* decay : {&decays.from_begin, &decays.to_end}) fit(decay, {matrices_, rows_}, options_);
    fit(&decays.whole, {matrices_, 1}, options_);
    return;
  }
  fit(&decays.factored, {matrices_}, options_.dtype(at::kByte));
  for (at::Tensor* decay : {&decays.whole, &decays.end}) fit(decay, {matrices_, key_dim_}, options_);
  if (!decays.keeps) return;
  for (at::Tensor* decay : {&decays.up, &decays.down}) fitted(decay, rows_, key_dim_);
}

Gather BlockWork::gather_reader(const at::Tensor& rows, double factor, const at::Tensor& beta, Reader* reader,
                                at::Tensor* decayed) {
  Gather gather{rows, factor, beta, fitted(&reader->rows, rows_, key_dim_), Gather::Decay::from_begin, {}, {}};
  reader->up = reader->decayed = reader->rows;
  if (decays.kind == GateKind::diagonal) {
    reader->up = reader->decayed = gather.near = fitted(decayed, rows_, key_dim_);
  } else if (decays.kind == GateKind::scalar) {
    reader->decayed = gather.far = fitted(decayed, rows_, key_dim_);
  }
  return gather;
}

Gather BlockWork::gather_keys() {
  Gather gather{operands_.key, 1, {}, fitted(&key, rows_, key_dim_), Gather::Decay::to_end, {}, {}};
  key_down = key_end = key_late = key;
  if (decays.kind == GateKind::diagonal) {
    key_down = key_end = gather.near = fitted(&key_down_, rows_, key_dim_);
    if (delta()) key_late = gather.far = fitted(&key_late_, rows_, key_dim_);
  } else if (decays.kind == GateKind::scalar) {
    key_end = key_late = gather.far = fitted(&key_late_, rows_, key_dim_);
  }
  return gather;
}

void BlockWork::load(const ChunkBlock& block, Parts parts) {
  block_ = &block;
  rows_ = block.chunk_tokens;
  matrices_ = block.num_chunks() * heads_;
  decays.keeps = parts.gradients;
  fit_decays();
  std::vector<Gather> gathers;
  if (parts.queries) {
    gathers.push_back(gather_reader(operands_.query, operands_.scale, {}, &query, &query_decayed_));
  }
  if (parts.keys) {
    gathers.push_back(gather_keys());
    if (delta()) {
      gathers.push_back(gather_reader(operands_.key, -1, operands_.beta, &erase, &erase_decayed_));
    }
  }
  if (parts.values) {
    Gather gather{
        operands_.value, 1, operands_.beta, fitted(&pre_written_, rows_, state_dim_), Gather::Decay::none, {}, {}};
    written = delta() ? fitted(&written_, rows_, state_dim_) : pre_written_;
    gathers.push_back(gather);
  }
  chunked::load(block.chunks, heads_, decays, gathers);
}

void BlockWork::pair(Reader* reader) {
  multiply(reader->up, Matrices(key_down).transposed(), Zeros::result_above, Sum::over,
           fitted(&reader->pairs, rows_, rows_));
  decay_pairs(decays, block_->chunks, key, *reader);
}

void BlockWork::pair_queries() { pair(&query); }

void BlockWork::solve() {
  if (!delta()) return;
  pair(&erase);
  invert_unit_lower(erase.pairs, fitted(&inverse, rows_, rows_));
}

Kept BlockWork::release() {
  if (!delta()) return {std::exchange(states, at::Tensor()), {}, {}, {}};
  written = at::Tensor();
  return {{},
          std::exchange(written_, at::Tensor()),
          std::exchange(erase.pairs, at::Tensor()),
          std::exchange(inverse, at::Tensor())};
}

void BlockWork::restore(Kept kept, const at::Tensor& current) {
  if (!delta()) {
    states = std::move(kept.states);
    return;
  }
  written = std::move(kept.written);
  erase.pairs = std::move(kept.erase_pairs);
  inverse = std::move(kept.inverse);
  advance_written(current);
}

Matrices BlockWork::wave(const Matrices& stack, int64_t wave) const {
  return stack.part(block_->waves[static_cast<size_t>(wave)] * heads_, block_->wave_size(wave) * heads_);
}

Matrices BlockWork::wave_states(const at::Tensor& current, int64_t wave) const {
  return Matrices(current).part(0, block_->wave_size(wave) * heads_);
}

StateDecay BlockWork::wave_decay(int64_t wave) const {
  return {this->wave(decays.whole, wave), this->wave(decays.end, wave)};
}

void BlockWork::advance(const at::Tensor& current) {
  if (!delta()) return advance_written(current);
  fitted(&states, key_dim_, state_dim_);
  for (int64_t w = 0; w < block_->num_waves(); ++w) {
    const Matrices state = wave_states(current, w), before = wave(states, w), own = wave(written, w);
    step_states(before, wave_decay(w), Recurrence::decay, state);
    const Matrices pre_written = wave(pre_written_, w);
    multiply(wave(erase.decayed, w), before, Zeros::none, Sum::add, pre_written);
    multiply(wave(inverse, w), pre_written, Zeros::left_above, Sum::over, own);
    multiply(wave(key_late, w).transposed(), own, Zeros::none, Sum::add, state);
  }
}

void BlockWork::advance_alone() {
  if (delta()) multiply(inverse, pre_written_, Zeros::left_above, Sum::over, written);
}

void BlockWork::advance_written(const at::Tensor& current) {
  multiply(Matrices(key_end).transposed(), written, Zeros::none, Sum::over, fitted(&states, key_dim_, state_dim_));
  for (int64_t w = 0; w < block_->num_waves(); ++w) {
    step_states(wave(states, w), wave_decay(w), Recurrence::increment, wave_states(current, w));
  }
}

at::Tensor& BlockWork::output(Terms terms) {
  fitted(&output_, rows_, state_dim_);
  const bool pairs = terms != Terms::states;
  if (pairs) multiply(query.pairs, written, Zeros::left_above, Sum::over, output_);
  if (terms != Terms::pairs) multiply(query.decayed, states, Zeros::none, pairs ? Sum::add : Sum::over, output_);
  return output_;
}

at::Tensor StateCarry::of_run(size_t run) const {
  return current_.narrow(0, static_cast<int64_t>(run) * sizes_[0], sizes_[0]);
}

at::Tensor& StateCarry::enter(const ChunkBlock& block, bool ChunkRun::*fresh, const std::vector<at::Tensor>& initial) {
  fit(&current_, {static_cast<int64_t>(block.runs.size()) * sizes_[0], sizes_[1], sizes_[2]}, options_);
  for (size_t r = 0; r < block.runs.size(); ++r) {
    const ChunkRun& run = block.runs[r];
    const at::Tensor from = run.*fresh ? initial[run.segment] : across_.extract(run.segment).mapped();
    from.defined() ? of_run(r).copy_(from) : of_run(r).zero_();
  }
  return current_;
}

void StateCarry::leave(const ChunkBlock& block, bool ChunkRun::*done,
                       const std::function<void(size_t, const at::Tensor&)>& take) {
  for (size_t r = 0; r < block.runs.size(); ++r) {
    const ChunkRun& run = block.runs[r];
    if (run.*done) {
      take(run.segment, of_run(r));
    } else {
      across_[run.segment] = of_run(r).clone();
    }
  }
}

}  // namespace evenspan::run::chunked
