// The states at the chunks' begins are computed again, by a sweep over the blocks. What it computes it keeps for the
// last blocks, as many as take no more bytes than the operands; of the others only the states at their begins, from
// which the second sweep, in reverse, makes them once more. A segment that is pending gets all its gradients in apply.
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>

#include <algorithm>
#include <optional>
#include <utility>

#include "run/linear/chunk_block.h"
#include "run/linear/chunk_gradients.h"
#include "run/linear/chunk_products.h"
#include "run/linear/chunked_passes.h"

namespace evenspan::run::chunked {
namespace {

class Backward : public LinearBackward {
 public:
  Backward(const LinearOperands& operands, const at::Tensor& grad_output, const LinearGradients& results,
           int64_t chunk_tokens)
      : operands_(operands),
        grad_output_(grad_output),
        results_(results),
        heads_(operands.key.size(1)),
        key_dim_(operands.key.size(2)),
        value_dim_(operands.value.size(2)),
        work_(operands, chunk_tokens, value_dim_) {
    if (fixed_gate()) fixed_gate_ = at::zeros({heads_}, work_.options().dtype(at::kDouble));
  }

  void summarize(const std::vector<RowRange>& segments, const std::vector<at::Tensor>& grad_states) override {
    const std::vector<ChunkBlock> blocks = work_.blocks(segments);
    StateCarry carry({heads_, key_dim_, value_dim_}, work_.options());
    const std::vector<at::Tensor> zeros(segments.size());
    alone_ = false;
    for (auto block = blocks.rbegin(); block != blocks.rend(); ++block) {
      work_.load(*block, {.queries = true, .keys = work_.delta()});
      if (work_.delta()) {
        work_.solve();
        work_.pair_queries();
      }
      load_cotangents();
      retreat(carry.enter(*block, &ChunkRun::last, zeros), false);
      carry.leave(*block, &ChunkRun::first, [&](size_t s, const at::Tensor& state) { grad_states[s].copy_(state); });
    }
  }

  void intra(const std::vector<RowRange>& segments, const std::vector<at::Tensor>& states,
             const std::vector<char>& pending) override {
    std::vector<RowRange> complete;
    std::vector<at::Tensor> complete_states;
    for (size_t s = 0; s < segments.size(); ++s) {
      if (pending[s] != 0) continue;
      complete.push_back(segments[s]);
      complete_states.push_back(states[s]);
    }
    run(complete, complete_states, std::vector<at::Tensor>(complete.size()));
  }

  void apply(const std::vector<RowRange>& segments, const std::vector<at::Tensor>& states,
             const std::vector<at::Tensor>& grad_states) override {
    run(segments, states, grad_states);
  }

  void finish() override {
    if (fixed_gate()) results_.gate.copy_(fixed_gate_);
  }

 private:
  bool fixed_gate() const { return operands_.gate.defined() && operands_.gate.dim() == 1; }

  void load_cotangents() {
    Gather gather;
    gather.from = grad_output_;
    gather.to = work_.fitted(&grad_out_, work_.chunk_tokens(), value_dim_);
    load(work_.block().chunks, heads_, Decays{}, {gather});
    if (alone_) return;
    multiply(Matrices(work_.query.decayed).transposed(), grad_out_, Zeros::none, Sum::over,
             work_.fitted(&grad_states_, key_dim_, value_dim_));
  }

  // Carries the gradients of the runs' states from their ends to their begins. grad_states_ gets those at the chunks'
  // ends, times Decays::end; with beta, where the queries are paired, grad_written_ what is written. If `gates`,
  // grad_whole_ gets BlockGradients::whole, of the states at the chunks' begins.
  void retreat(const at::Tensor& current, bool gates) {
    const ChunkBlock& block = work_.block();
    if (work_.delta()) {
      multiply(Matrices(work_.query.pairs).transposed(), grad_out_, Zeros::left_below, Sum::over,
               work_.fitted(&grad_solved_, work_.chunk_tokens(), value_dim_));
      work_.fitted(&grad_written_, work_.chunk_tokens(), value_dim_);
    }
    if (gates) fit(&grad_whole_, work_.decays.whole.sizes(), work_.options());
    for (int64_t w = block.num_waves(); w-- > 0;) {
      const Matrices state = work_.wave_states(current, w), after = work_.wave(grad_states_, w);
      const Matrices none;
      step_back(after, work_.wave_decay(w), state, gates ? work_.wave(work_.states, w) : none,
                gates ? work_.wave(grad_whole_, w) : none);
      if (!work_.delta()) continue;
      const Matrices solved = work_.wave(grad_solved_, w), written = work_.wave(grad_written_, w);
      multiply(work_.wave(work_.key_end, w), after, Zeros::none, Sum::add, solved);
      multiply(work_.wave(work_.inverse, w).transposed(), solved, Zeros::left_below, Sum::over, written);
      multiply(work_.wave(work_.erase.decayed, w).transposed(), written, Zeros::none, Sum::add, state);
    }
  }

  // The same of a block that stands alone.
  void retreat_alone() {
    if (work_.decays.kind != GateKind::none) fit(&grad_whole_, work_.decays.whole.sizes(), work_.options()).zero_();
    if (!work_.delta()) return;
    multiply(Matrices(work_.query.pairs).transposed(), grad_out_, Zeros::left_below, Sum::over,
             work_.fitted(&grad_solved_, work_.chunk_tokens(), value_dim_));
    multiply(Matrices(work_.inverse).transposed(), grad_solved_, Zeros::left_below, Sum::over,
             work_.fitted(&grad_written_, work_.chunk_tokens(), value_dim_));
  }

  // What a first sweep leaves for the second.
  struct Swept {
    at::Tensor entry;  // the states of the runs at their begins, where one of them is not its segment's first
    std::optional<Kept> kept;
  };

  std::vector<Swept> sweep(const std::vector<ChunkBlock>& blocks, const std::vector<RowRange>& segments,
                           const std::vector<at::Tensor>& states) {
    std::vector<Swept> result(blocks.size());
    size_t first_kept = blocks.size();
    for (int64_t room = operand_bytes(segments); first_kept > 0; --first_kept) {
      room -= kept_bytes(blocks[first_kept - 1]);
      if (room < 0) break;
    }
    StateCarry carry({heads_, key_dim_, value_dim_}, work_.options());
    for (size_t b = 0; b < blocks.size(); ++b) {
      const bool enters = !blocks[b].all(&ChunkRun::first), goes_on = !blocks[b].all(&ChunkRun::last);
      if (!enters && !goes_on) continue;
      const at::Tensor& current = carry.enter(blocks[b], &ChunkRun::first, states);
      if (enters) result[b].entry = current.clone();
      if (!goes_on) continue;
      work_.load(blocks[b], {.keys = true, .values = true});
      work_.solve();
      work_.advance(current);
      carry.leave(blocks[b], &ChunkRun::last, [](size_t, const at::Tensor&) {});
      if (b >= first_kept) result[b].kept = work_.release();
    }
    return result;
  }

  int64_t operand_bytes(const std::vector<RowRange>& segments) const {
    int64_t rows = 0;
    for (const RowRange& segment : segments) rows += segment.size();
    return rows * heads_ * (2 * key_dim_ + value_dim_) * static_cast<int64_t>(operands_.key.element_size());
  }
  int64_t kept_bytes(const ChunkBlock& block) const {
    const int64_t chunk = block.chunk_tokens;
    const int64_t each = work_.delta() ? chunk * (value_dim_ + 2 * chunk) : key_dim_ * value_dim_;
    return block.num_chunks() * heads_ * each * static_cast<int64_t>(work_.options().dtype().itemsize());
  }

  void run(const std::vector<RowRange>& segments, const std::vector<at::Tensor>& states,
           const std::vector<at::Tensor>& grad_states) {
    const std::vector<ChunkBlock> blocks = work_.blocks(segments);
    std::vector<Swept> swept = sweep(blocks, segments, states);
    StateCarry forward({heads_, key_dim_, value_dim_}, work_.options());
    StateCarry backward({heads_, key_dim_, value_dim_}, work_.options());
    for (size_t b = blocks.size(); b-- > 0;) {
      std::optional<Kept> kept = std::exchange(swept[b].kept, {});
      work_.load(blocks[b], {.queries = true, .keys = true, .values = !kept || !work_.delta(), .gradients = true});
      work_.pair_queries();
      alone_ = blocks[b].stands_alone(states) && blocks[b].stands_alone(grad_states);
      if (alone_) {
        work_.solve();
        work_.advance_alone();
        load_cotangents();
        retreat_alone();
        write_block();
        continue;
      }
      const at::Tensor& current =
          swept[b].entry.defined() ? swept[b].entry : forward.enter(blocks[b], &ChunkRun::first, states);
      if (kept) {
        work_.restore(*std::move(kept), current);
      } else {
        work_.solve();
        work_.advance(current);
      }
      load_cotangents();
      retreat(backward.enter(blocks[b], &ChunkRun::last, grad_states), work_.decays.kind != GateKind::none);
      backward.leave(blocks[b], &ChunkRun::first, [](size_t, const at::Tensor&) {});
      write_block();
    }
  }

  // out = left states^T, or out += that: all states are 0 in a block that stands alone.
  void multiply_by_states(const at::Tensor& left, const at::Tensor& states, Sum sum, const at::Tensor& out) const {
    if (!alone_) return multiply(left, Matrices(states).transposed(), Zeros::none, sum, out);
    if (sum == Sum::over) out.zero_();
  }

  void write_block() {
    const GateKind kind = work_.decays.kind;
    BlockGradients gradients;
    if (!work_.delta()) {
      multiply(Matrices(work_.query.pairs).transposed(), grad_out_, Zeros::left_below, Sum::over,
               work_.fitted(&grad_written_, work_.chunk_tokens(), value_dim_));
      if (!alone_) multiply(work_.key_end, grad_states_, Zeros::none, Sum::add, grad_written_);
    }
    gradients.written = grad_written_;
    if (kind == GateKind::scalar) {
      gradients.sums = work_.fitted(&grad_sums_, work_.chunk_tokens(), 1);
      gradients.sums.zero_();
    }
    if (!work_.decays.all_factored()) {
      gradients.key_unfactored = work_.fitted(&key_unfactored_, work_.chunk_tokens(), key_dim_);
      gradients.key_unfactored.zero_();
    }
    gradients.key = work_.fitted(&grad_key_, work_.chunk_tokens(), key_dim_);
    read_gradients(&work_.query, grad_out_, gradients);
    multiply(Matrices(work_.query.grad_pairs).transposed(), work_.query.up, Zeros::left_below, Sum::over,
             gradients.key);
    std::vector<Reader> readers{work_.query};
    if (work_.delta()) {
      read_gradients(&work_.erase, grad_written_, gradients);
      multiply(Matrices(work_.erase.grad_pairs).transposed(), work_.erase.up, Zeros::left_below, Sum::add,
               gradients.key);
      readers.push_back(work_.erase);
    }
    if (kind == GateKind::none) {
      multiply_by_states(work_.written, grad_states_, Sum::add, gradients.key);
    } else {
      gradients.key_end = work_.fitted(&grad_key_end_, work_.chunk_tokens(), key_dim_);
      multiply_by_states(work_.written, grad_states_, Sum::over, gradients.key_end);
      gradients.whole = grad_whole_;
    }
    if (fixed_gate()) gradients.fixed_gate = fit(&grad_fixed_, {gradients.key.size(0)}, work_.options());
    write_gradients(operands_, work_.block().chunks, work_.decays, readers, work_.key, gradients, results_);
    if (fixed_gate()) fixed_gate_.add_(grad_fixed_.view({-1, heads_}).sum(0, false, at::kDouble));
  }

  // The gradients of a reader whose results have the gradient `cotangent`.
  void read_gradients(Reader* reader, const at::Tensor& cotangent, const BlockGradients& gradients) {
    const int64_t rows = work_.chunk_tokens();
    multiply(cotangent, Matrices(work_.written).transposed(), Zeros::result_above, Sum::over,
             work_.fitted(&reader->grad_pairs, rows, rows));
    if (work_.decays.kind == GateKind::diagonal && reader->itself) {
      fit(&reader->grad_itself, {cotangent.size(0), rows}, work_.options());
    }
    decay_pair_gradients(work_.decays, *reader, gradients.sums);
    reader->grad_unfactored = at::Tensor();
    if (gradients.key_unfactored.defined()) {
      reader->grad_unfactored = at::zeros_like(gradients.key_unfactored);
      unfactored_gradients(work_.decays, work_.block().chunks, work_.key, *reader, gradients.key_unfactored);
    }
    multiply(reader->grad_pairs, work_.key_down, Zeros::left_above, Sum::over,
             work_.fitted(&reader->grad_rows, rows, key_dim_));
    if (work_.decays.kind == GateKind::scalar) {
      multiply_by_states(cotangent, work_.states, Sum::over, work_.fitted(&reader->grad_decayed, rows, key_dim_));
    } else {
      multiply_by_states(cotangent, work_.states, Sum::add, reader->grad_rows);
    }
  }

  LinearOperands operands_;
  at::Tensor grad_output_;
  LinearGradients results_;
  int64_t heads_, key_dim_, value_dim_;
  BlockWork work_;
  bool alone_ = false;     // the block at hand: no state of it matters
  at::Tensor fixed_gate_;  // [heads], so far
  at::Tensor grad_out_, grad_states_, grad_solved_, grad_written_, grad_key_, grad_key_end_, grad_sums_, grad_fixed_;
  at::Tensor grad_whole_, key_unfactored_;
};

}  // namespace

std::unique_ptr<LinearBackward> make_backward(const LinearOperands& operands, const at::Tensor& grad_output,
                                              const LinearGradients& gradients, int64_t chunk_tokens) {
  return std::make_unique<Backward>(operands, grad_output, gradients, chunk_tokens);
}

}  // namespace evenspan::run::chunked
