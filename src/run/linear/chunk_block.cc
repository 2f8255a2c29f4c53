#include "run/linear/chunk_block.h"

#include <ATen/Parallel.h>
#include <ATen/ops/bmm.h>
#include <ATen/ops/empty.h>

#include <algorithm>

namespace evenspan::run::chunked {
namespace {

// Rows times heads of a block for each thread: its matrices stay in the processor's cache, and are enough for a batch.
constexpr int64_t kBlockRows = 2048;

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

BlockWork::BlockWork(const LinearOperands& operands, int64_t chunk_tokens, int64_t state_dim)
    : operands_(operands),
      heads_(operands.key.size(1)),
      key_dim_(operands.key.size(2)),
      state_dim_(state_dim),
      options_(operands.key.options().dtype(operands.key.scalar_type() == at::kDouble ? at::kDouble : at::kFloat)) {
  decays.kind = kind_of(operands.gate);
  chunk_tokens_ = decays.kind == GateKind::diagonal ? std::min(chunk_tokens, kDiagonalChunkTokens) : chunk_tokens;
  block_chunks_ = std::max<int64_t>(1, at::get_num_threads() * kBlockRows / (heads_ * chunk_tokens_));
  query.itself = true;
}

std::vector<Block> BlockWork::blocks(const std::vector<RowRange>& segments) const {
  return blocks_of(segments, chunk_tokens_, block_chunks_);
}

at::Tensor& BlockWork::fitted(at::Tensor* tensor, int64_t rows, int64_t columns) const {
  return fit(tensor, {matrices_, rows, columns}, options_);
}

void BlockWork::begin(const Block& block) {
  block_ = &block;
  matrices_ = block.num_chunks() * heads_;
  if (decays.kind == GateKind::none) return;
  const int64_t width = decays.kind == GateKind::scalar ? 1 : key_dim_;
  fitted(&decays.gate, chunk_tokens_, width);
  fitted(&decays.from_begin, chunk_tokens_, width);
  fitted(&decays.to_end, chunk_tokens_, width);
  fit(&decays.whole, {matrices_, width}, options_);
  if (decays.kind == GateKind::diagonal) {
    fitted(&decays.up, chunk_tokens_, width);
    fitted(&decays.down, chunk_tokens_, width);
    fit(&decays.factored, {matrices_}, options_.dtype(at::kByte));
  }
  fill_decays(operands_.gate, block.chunks, heads_, decays);
}

void BlockWork::load_reader(const at::Tensor& rows, double factor, const at::Tensor& beta, Reader* reader) {
  gather(rows, block_->chunks, factor, beta, fitted(&reader->rows, chunk_tokens_, key_dim_));
  const bool queries = reader == &query;
  reader->up = reader->decayed = reader->rows;
  if (decays.kind != GateKind::none) {
    reader->decayed = fitted(queries ? &query_decayed_ : &erase_decayed_, chunk_tokens_, key_dim_);
    scale_rows(reader->rows, decays.from_begin, reader->decayed);
  }
  if (decays.kind == GateKind::diagonal) {
    reader->up = fitted(queries ? &query_up_ : &erase_up_, chunk_tokens_, key_dim_);
    scale_rows(reader->rows, decays.up, reader->up);
  }
}

void BlockWork::pair(Reader* reader) {
  at::bmm_out(fitted(&reader->pairs, chunk_tokens_, chunk_tokens_), reader->up, key_down.transpose(1, 2));
  decay_pairs(decays, key, *reader);
}

void BlockWork::load_queries() { load_reader(operands_.query, operands_.scale, {}, &query); }

void BlockWork::load_keys() {
  gather(operands_.key, block_->chunks, 1, {}, fitted(&key, chunk_tokens_, key_dim_));
  key_down = key_late = key;
  if (decays.kind != GateKind::none) {
    scale_rows(key, decays.to_end, key_late = fitted(&key_late_, chunk_tokens_, key_dim_));
  }
  if (decays.kind == GateKind::diagonal) {
    scale_rows(key, decays.down, key_down = fitted(&key_down_, chunk_tokens_, key_dim_));
  }
  if (!delta()) return;
  load_reader(operands_.key, -1, operands_.beta, &erase);
  pair(&erase);
  invert_unit_lower(erase.pairs, fitted(&inverse, chunk_tokens_, chunk_tokens_));
}

void BlockWork::load_values() {
  gather(operands_.value, block_->chunks, 1, operands_.beta, fitted(&pre_written_, chunk_tokens_, state_dim_));
  written = delta() ? fitted(&written_, chunk_tokens_, state_dim_) : pre_written_;
}

void BlockWork::pair_queries() { pair(&query); }

at::Tensor BlockWork::wave(const at::Tensor& stack, int64_t wave) const {
  return stack.narrow(0, block_->waves[static_cast<size_t>(wave)] * heads_, block_->wave_size(wave) * heads_);
}

at::Tensor BlockWork::wave_states(const at::Tensor& current, int64_t wave) const {
  return current.narrow(0, 0, block_->wave_size(wave) * heads_);
}

void BlockWork::advance(const at::Tensor& current) {
  fitted(&states, key_dim_, state_dim_);
  if (!delta()) at::bmm_out(states, key_late.transpose(1, 2), written);
  for (int64_t w = 0; w < block_->num_waves(); ++w) {
    const at::Tensor state = wave_states(current, w), before = wave(states, w);
    step_states(before, decays.whole.defined() ? wave(decays.whole, w) : at::Tensor(), !delta(), state);
    if (!delta()) continue;
    at::Tensor own = wave(written, w);
    at::bmm_out(own, wave(inverse, w), wave(pre_written_, w).baddbmm_(wave(erase.decayed, w), before));
    at::Tensor(state).baddbmm_(wave(key_late, w).transpose(1, 2), own);
  }
}

at::Tensor& BlockWork::output(Terms terms) {
  fitted(&output_, chunk_tokens_, state_dim_);
  if (terms == Terms::states) return at::bmm_out(output_, query.decayed, states);
  at::bmm_out(output_, query.pairs, written);
  if (terms == Terms::both) output_.baddbmm_(query.decayed, states);
  return output_;
}

at::Tensor StateCarry::of_run(size_t run) const {
  return current_.narrow(0, static_cast<int64_t>(run) * sizes_[0], sizes_[0]);
}

const at::Tensor& StateCarry::enter(const Block& block, bool Run::*fresh, const std::vector<at::Tensor>& initial) {
  fit(&current_, {static_cast<int64_t>(block.runs.size()) * sizes_[0], sizes_[1], sizes_[2]}, options_);
  for (size_t r = 0; r < block.runs.size(); ++r) {
    const Run& run = block.runs[r];
    const at::Tensor& from = run.*fresh ? initial[run.segment] : across_;
    from.defined() ? of_run(r).copy_(from) : of_run(r).zero_();
  }
  return current_;
}

void StateCarry::leave(const Block& block, bool Run::*done,
                       const std::function<void(size_t, const at::Tensor&)>& take) {
  for (size_t r = 0; r < block.runs.size(); ++r) {
    const Run& run = block.runs[r];
    if (run.*done) {
      take(run.segment, of_run(r));
    } else {
      fit(&across_, sizes_, options_).copy_(of_run(r));
    }
  }
}

}  // namespace evenspan::run::chunked
