// Where there is no beta and the output has the accumulation type, intra writes what needs no state and apply adds the
// rest. Otherwise apply does all: with beta nothing but the chunks' inverses is independent of the states, and a
// partial output of 16 bits would be rounded twice.
#include <ATen/ops/eye.h>
#include <ATen/ops/zeros.h>

#include "run/linear/chunk_block.h"
#include "run/linear/chunked_passes.h"

namespace evenspan::run::chunked {
namespace {

using Terms = BlockWork::Terms;

class Forward : public LinearForward {
 public:
  Forward(const LinearOperands& operands, const at::Tensor& output, int64_t chunk_tokens)
      : operands_(operands),
        output_(output),
        chunk_tokens_(chunk_tokens),
        heads_(operands.key.size(1)),
        key_dim_(operands.key.size(2)),
        value_dim_(operands.value.size(2)),
        work_(operands, chunk_tokens, value_dim_),
        splits_(!work_.delta() && output.scalar_type() == work_.options().dtype()) {}

  void summarize(const std::vector<RowRange>& segments, const std::vector<LinearSummary>& summaries) override {
    work_.delta() ? summarize_dense(segments, summaries) : summarize_decays(segments, summaries);
  }

  void intra(const std::vector<RowRange>& segments, const std::vector<char>& pending) override {
    std::vector<RowRange> complete, partial;
    for (size_t s = 0; s < segments.size(); ++s) (pending[s] != 0 ? partial : complete).push_back(segments[s]);
    run(complete, std::vector<at::Tensor>(complete.size()), Terms::both);
    if (!splits_) return;
    for (const ChunkBlock& block : work_.blocks(partial)) {
      load(block, Terms::pairs);
      scatter(work_.output(Terms::pairs), block.chunks, Write::over, output_);
    }
  }

  void apply(const std::vector<RowRange>& segments, const std::vector<at::Tensor>& states) override {
    run(segments, states, splits_ ? Terms::states : Terms::both);
  }

 private:
  void load(const ChunkBlock& block, Terms terms) {
    work_.load(block, {.queries = true, .keys = true, .values = true});
    if (terms != Terms::states) work_.pair_queries();
  }

  void run(const std::vector<RowRange>& segments, const std::vector<at::Tensor>& states, Terms terms) {
    StateCarry carry({heads_, key_dim_, value_dim_}, work_.options());
    for (const ChunkBlock& block : work_.blocks(segments)) {
      load(block, terms);
      work_.solve();
      if (terms == Terms::both && block.stands_alone(states)) {
        work_.advance_alone();
        scatter(work_.output(Terms::pairs), block.chunks, Write::over, output_);
        continue;
      }
      work_.advance(carry.enter(block, &ChunkRun::first, states));
      scatter(work_.output(terms), block.chunks, terms == Terms::states ? Write::add : Write::over, output_);
      carry.leave(block, &ChunkRun::last, [](size_t, const at::Tensor&) {});
    }
  }

  // The states after the segments, which start from `initial`.
  void run_states(BlockWork* work, const std::vector<RowRange>& segments, const at::Tensor& initial,
                  const std::function<void(size_t, const at::Tensor&)>& take) {
    StateCarry carry(initial.sizes(), work->options());
    const std::vector<at::Tensor> states(segments.size(), initial);
    for (const ChunkBlock& block : work->blocks(segments)) {
      work->load(block, {.keys = true, .values = true});
      work->solve();
      work->advance(carry.enter(block, &ChunkRun::first, states));
      carry.leave(block, &ChunkRun::last, take);
    }
  }

  void summarize_decays(const std::vector<RowRange>& segments, const std::vector<LinearSummary>& summaries) {
    const at::Tensor zero = at::zeros({heads_, key_dim_, value_dim_}, work_.options());
    run_states(&work_, segments, zero, [&](size_t s, const at::Tensor& state) { summaries[s].state.copy_(state); });
    if (!operands_.gate.defined() || operands_.gate.dim() == 1) return;
    for (size_t s = 0; s < segments.size(); ++s) {
      const at::Tensor& transition = summaries[s].transition;
      transition.copy_(operands_.gate.narrow(0, segments[s].begin, segments[s].size()).sum(0).view(transition.sizes()));
    }
  }

  // Columns that start from the identity, and to which nothing is written, end as the transition.
  void summarize_dense(const std::vector<RowRange>& segments, const std::vector<LinearSummary>& summaries) {
    BlockWork work(operands_, chunk_tokens_, value_dim_ + key_dim_);
    const at::Tensor initial = at::zeros({heads_, key_dim_, value_dim_ + key_dim_}, work.options());
    initial.narrow(2, value_dim_, key_dim_).copy_(at::eye(key_dim_, work.options()));
    run_states(&work, segments, initial, [&](size_t s, const at::Tensor& state) {
      summaries[s].state.copy_(state.narrow(2, 0, value_dim_));
      summaries[s].transition.copy_(state.narrow(2, value_dim_, key_dim_));
    });
  }

  LinearOperands operands_;
  at::Tensor output_;
  int64_t chunk_tokens_, heads_, key_dim_, value_dim_;
  BlockWork work_;
  bool splits_;
};

}  // namespace

std::unique_ptr<LinearForward> make_forward(const LinearOperands& operands, const at::Tensor& output,
                                            int64_t chunk_tokens) {
  return std::make_unique<Forward>(operands, output, chunk_tokens);
}

}  // namespace evenspan::run::chunked
