// The states at the chunks' begins are computed again: a sweep over a segment keeps those at its blocks' begins, and a
// second one, in reverse, those of one block at a time. A segment that is pending gets all its gradients in apply.
#include <ATen/ops/bmm.h>
#include <ATen/ops/zeros.h>

#include <algorithm>

#include "run/linear/chunk_block.h"
#include "run/linear/chunk_gradients.h"
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
    const std::vector<Block> blocks = work_.blocks(segments);
    StateCarry carry({heads_, key_dim_, value_dim_}, work_.options());
    const std::vector<at::Tensor> zeros(segments.size());
    for (auto block = blocks.rbegin(); block != blocks.rend(); ++block) {
      work_.begin(*block);
      work_.load_queries();
      if (work_.delta()) {
        work_.load_keys();
        work_.pair_queries();
      }
      load_cotangents();
      retreat(carry.enter(*block, &Run::last, zeros));
      carry.leave(*block, &Run::first, [&](size_t s, const at::Tensor& state) { grad_states[s].copy_(state); });
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
    gather(grad_output_, work_.block().chunks, 1, {}, work_.fitted(&grad_out_, work_.chunk_tokens(), value_dim_));
    at::bmm_out(work_.fitted(&grad_states_, key_dim_, value_dim_), work_.query.decayed.transpose(1, 2), grad_out_);
  }

  // Carries the gradients of the runs' states from their ends to their begins. grad_states_ gets those at the chunks'
  // ends; with beta, where the queries are paired, grad_written_ what is written.
  void retreat(const at::Tensor& current) {
    const Block& block = work_.block();
    if (work_.delta()) {
      at::bmm_out(work_.fitted(&grad_solved_, work_.chunk_tokens(), value_dim_), work_.query.pairs.transpose(1, 2),
                  grad_out_);
      work_.fitted(&grad_written_, work_.chunk_tokens(), value_dim_);
    }
    for (int64_t w = block.num_waves(); w-- > 0;) {
      const at::Tensor& whole = work_.decays.whole;
      at::Tensor state = work_.wave_states(current, w), after = work_.wave(grad_states_, w);
      step_states(after, whole.defined() ? work_.wave(whole, w) : at::Tensor(), true, state);
      if (!work_.delta()) continue;
      at::Tensor solved = work_.wave(grad_solved_, w), written = work_.wave(grad_written_, w);
      solved.baddbmm_(work_.wave(work_.key_late, w), after);
      at::bmm_out(written, work_.wave(work_.inverse, w).transpose(1, 2), solved);
      state.baddbmm_(work_.wave(work_.erase.decayed, w).transpose(1, 2), written);
    }
  }

  // The states at the begins of blocks in which a run continues, for each block.
  std::vector<at::Tensor> states_at_blocks(const std::vector<Block>& blocks, const std::vector<at::Tensor>& states) {
    std::vector<at::Tensor> result(blocks.size());
    StateCarry carry({heads_, key_dim_, value_dim_}, work_.options());
    for (size_t b = 0; b + 1 < blocks.size(); ++b) {
      const auto& runs = blocks[b].runs;
      if (std::all_of(runs.begin(), runs.end(), [](const Run& run) { return run.last; })) continue;
      work_.begin(blocks[b]);
      work_.load_keys();
      work_.load_values();
      work_.advance(carry.enter(blocks[b], &Run::first, states));
      carry.leave(blocks[b], &Run::last, [](size_t, const at::Tensor&) {});
      result[b + 1] = carry.across().clone();
    }
    return result;
  }

  void run(const std::vector<RowRange>& segments, const std::vector<at::Tensor>& states,
           const std::vector<at::Tensor>& grad_states) {
    const std::vector<Block> blocks = work_.blocks(segments);
    const std::vector<at::Tensor> begins = states_at_blocks(blocks, states);
    StateCarry forward({heads_, key_dim_, value_dim_}, work_.options());
    StateCarry backward({heads_, key_dim_, value_dim_}, work_.options());
    for (size_t b = blocks.size(); b-- > 0;) {
      work_.begin(blocks[b]);
      work_.load_queries();
      work_.load_keys();
      work_.load_values();
      work_.pair_queries();
      forward.across() = begins[b];
      work_.advance(forward.enter(blocks[b], &Run::first, states));
      load_cotangents();
      retreat(backward.enter(blocks[b], &Run::last, grad_states));
      backward.leave(blocks[b], &Run::first, [](size_t, const at::Tensor&) {});
      write_block();
    }
  }

  void write_block() {
    const bool gated = work_.decays.kind != GateKind::none;
    BlockGradients gradients;
    if (!work_.delta()) {
      at::bmm_out(work_.fitted(&grad_written_, work_.chunk_tokens(), value_dim_), work_.query.pairs.transpose(1, 2),
                  grad_out_);
      grad_written_.baddbmm_(work_.key_late, grad_states_);
    }
    gradients.written = grad_written_;
    if (work_.decays.kind == GateKind::scalar) {
      gradients.sums = work_.fitted(&grad_sums_, work_.chunk_tokens(), 1);
      gradients.sums.zero_();
    }
    gradients.key = work_.fitted(&grad_key_, work_.chunk_tokens(), key_dim_);
    read_gradients(&work_.query, grad_out_, gradients.sums);
    at::bmm_out(gradients.key, work_.query.grad_pairs.transpose(1, 2), work_.query.up);
    std::vector<Reader> readers{work_.query};
    if (work_.delta()) {
      read_gradients(&work_.erase, grad_written_, gradients.sums);
      gradients.key.baddbmm_(work_.erase.grad_pairs.transpose(1, 2), work_.erase.up);
      readers.push_back(work_.erase);
    }
    if (work_.decays.kind == GateKind::diagonal) {
      unfactored_gradients(work_.decays, work_.key, readers, gradients.key);
    }
    if (gated) {
      gradients.key_late = work_.fitted(&grad_key_late_, work_.chunk_tokens(), key_dim_);
      at::bmm_out(gradients.key_late, work_.written, grad_states_.transpose(1, 2));
      gradients.states = work_.states;
      gradients.grad_states = grad_states_;
    } else {
      gradients.key.baddbmm_(work_.written, grad_states_.transpose(1, 2));
    }
    if (fixed_gate()) gradients.fixed_gate = fit(&grad_fixed_, {gradients.key.size(0)}, work_.options());
    write_gradients(operands_, work_.block().chunks, work_.decays, readers, work_.key, gradients, results_);
    if (fixed_gate()) fixed_gate_.add_(grad_fixed_.view({-1, heads_}).sum(0, false, at::kDouble));
  }

  // The gradients of a reader whose results have the gradient `cotangent`.
  void read_gradients(Reader* reader, const at::Tensor& cotangent, const at::Tensor& sums) {
    const int64_t rows = work_.chunk_tokens();
    at::bmm_out(work_.fitted(&reader->grad_pairs, rows, rows), cotangent, work_.written.transpose(1, 2));
    if (work_.decays.kind == GateKind::diagonal && reader->itself) {
      fit(&reader->grad_itself, {cotangent.size(0), rows}, work_.options());
    }
    decay_pair_gradients(work_.decays, *reader, sums);
    at::bmm_out(work_.fitted(&reader->grad_rows, rows, key_dim_), reader->grad_pairs, work_.key_down);
    if (work_.decays.kind == GateKind::none) {
      reader->grad_rows.baddbmm_(cotangent, work_.states.transpose(1, 2));
    } else {
      at::bmm_out(work_.fitted(&reader->grad_decayed, rows, key_dim_), cotangent, work_.states.transpose(1, 2));
    }
  }

  LinearOperands operands_;
  at::Tensor grad_output_;
  LinearGradients results_;
  int64_t heads_, key_dim_, value_dim_;
  BlockWork work_;
  at::Tensor fixed_gate_;  // [heads], so far
  at::Tensor grad_out_, grad_states_, grad_solved_, grad_written_, grad_key_, grad_key_late_, grad_sums_, grad_fixed_;
};

}  // namespace

std::unique_ptr<LinearBackward> make_backward(const LinearOperands& operands, const at::Tensor& grad_output,
                                              const LinearGradients& gradients, int64_t chunk_tokens) {
  return std::make_unique<Backward>(operands, grad_output, gradients, chunk_tokens);
}

}  // namespace evenspan::run::chunked
