#include "run/interpreter.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/add.h>
#include <ATen/ops/addcmul.h>
#include <ATen/ops/baddbmm.h>
#include <ATen/ops/bmm.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/where.h>

#include <limits>
#include <map>
#include <memory>
#include <type_traits>

#include "evenspan/core/error.h"
#include "plan/visit.h"
#include "run/entry.h"
#include "run/kernels.h"
#include "run/partials.h"
#include "run/tile_batch.h"
#include "run/view.h"

namespace evenspan::run {
namespace {

using plan::Block;
using plan::BufferId;
using plan::TensorName;

// Results of kernel calls that wait to be merged, in elements: bounds memory beside the arena, and is enough to keep
// all threads busy.
constexpr int64_t kHeldElements = int64_t{1} << 22;

class Interpreter {
 public:
  Interpreter(const plan::AttentionShape& shape, const Memory& memory, const comm::Communicator& communicator,
              const std::string& name)
      : shape_(shape), memory_(memory), communicator_(communicator), name_(name) {}

  void run(const plan::Phase& phase) {
    for (const plan::Operation& operation : phase.operations) {
      for (const plan::Event event : operation.waits) wait(event);
      std::visit(
          [&](const auto& body) {
            if constexpr (std::is_same_v<std::decay_t<decltype(body)>, plan::Exchange>) {
              start(body, operation.signals);
            } else {
              execute(body);
            }
          },
          operation.body);
    }
    while (!works_.empty()) wait(works_.begin()->first);
  }

 private:
  void wait(plan::Event event) {
    const auto at = works_.find(event);
    if (at == works_.end()) return;
    at->second->wait();
    works_.erase(at);
  }

  at::ScalarType type_of(const Block& block) const {
    return scalar_type(block.precision == plan::Precision::input ? shape_.element
                                                                 : plan::accumulation_type(shape_.element));
  }

  const at::Tensor& bytes_of(const Block& block) const { return memory_.buffers[static_cast<size_t>(block.buffer)]; }

  // [tiles, rows, heads, width], or [tiles, rows, heads] for lse and delta: `count` blocks, `step` bytes apart.
  at::Tensor view(const Block& block, int64_t count = 1, int64_t step = 0) const {
    const int64_t element = plan::element_bytes(block, shape_);
    const int64_t width = plan::width(block.tensor, shape_);
    const int64_t offset = block.offset_bytes / element, step_elements = step / element;
    const int64_t rows = plan::num_rows(block), heads = block.heads.size();
    if (block.buffer == BufferId::home) {
      // The caller's tensor may have strides of its own.
      const at::Tensor& home = memory_.home_of(block.tensor);
      const int64_t row = offset / block.row_stride, head = offset % block.row_stride / width;
      const int64_t start = home.storage_offset() + row * home.stride(0) + head * home.stride(1);
      return make_view(home, home.dtype(), {count, rows, heads, width},
                       {step_elements / block.row_stride * home.stride(0), home.stride(0), home.stride(1), 1}, start);
    }
    const auto type = c10::scalarTypeToTypeMeta(type_of(block));
    if (block.tensor == TensorName::lse || block.tensor == TensorName::delta) {
      return make_view(bytes_of(block), type, {count, rows, heads}, {step_elements, block.row_stride, 1}, offset);
    }
    return make_view(bytes_of(block), type, {count, rows, heads, width}, {step_elements, block.row_stride, width, 1},
                     offset);
  }

  at::Tensor message_bytes(const plan::Message& message) const {
    const Block& first = message.blocks.front();
    if (first.buffer == BufferId::home) return view(first).contiguous().view({-1}).view(at::kByte);
    int64_t bytes = 0;
    for (const Block& block : message.blocks) bytes += plan::payload_bytes(block, shape_);
    return bytes_of(first).narrow(0, first.offset_bytes, bytes);
  }

  void start(const plan::Exchange& exchange, plan::Event event) {
    std::vector<comm::Transfer> sends, receives;
    for (const auto& message : exchange.items) {
      auto& list = message.direction == plan::Direction::send ? sends : receives;
      list.push_back({message.peer, message_bytes(message)});
    }
    works_[event] =
        communicator_.exchange(std::move(sends), std::move(receives), join_text(name_, ", exchange ", event));
  }

  // Operands of the batch's kernel call.
  template <class Body, class Segment>
  KernelCall call_of(const TileBatch<Segment>& batch) const {
    constexpr std::array<at::Tensor KernelCall::*, kMostUses> kFields = {
        &KernelCall::query,      &KernelCall::key,      &KernelCall::value,
        &KernelCall::output,     &KernelCall::lse,      &KernelCall::grad_output,
        &KernelCall::grad_query, &KernelCall::grad_key, &KernelCall::grad_value};
    const Segment& segment = *batch.first;
    KernelCall call;
    call.kind = segment.kind;
    call.first_query = segment.query.rows.begin;
    call.first_key = segment.key.rows.begin;
    call.window = segment.window;
    size_t use = 0;
    plan::for_each_block_of<Body>(segment, shape_, [&](const Block& block, plan::Access) {
      call.*kFields[use] = view(block, batch.count, batch.steps[use]);
      ++use;
    });
    return call;
  }

  // Kernels write in place what they alone write, in the input's type. The rest they write beside it, and it is merged
  // in the order of the program: `merge(to, from)`.
  struct Beside {
    at::Tensor to, from;
    bool add;
  };
  static int64_t put_beside(at::Tensor* result, bool add, at::ScalarType type, std::vector<Beside>* merges) {
    if (!add && result->scalar_type() == type) return 0;
    merges->push_back({*result, at::empty(result->sizes(), result->options().dtype(type)), add});
    *result = merges->back().from;
    return result->numel();
  }

  void execute(const plan::Attend& attend) {
    const at::ScalarType type = scalar_type(shape_.element);
    std::vector<KernelCall> calls;
    std::vector<Beside> outputs, folds;  // folds: output and lse of a call, one after the other
    int64_t held = 0;
    const auto flush = [&] {
      run::attend(calls);
      for (const Beside& merge : outputs) merge.to.copy_(merge.from);
      for (size_t i = 0; i < folds.size(); i += 2) {
        merge_partials(folds[i].to, folds[i + 1].to, folds[i].from, folds[i + 1].from);
      }
      calls.clear();
      outputs.clear();
      folds.clear();
      held = 0;
    };
    for (const auto& batch : tile_batches(attend, shape_)) {
      KernelCall call = call_of<plan::Attend>(batch);
      const bool fold = batch.first->fold;
      held += put_beside(&call.output, fold, type, fold ? &folds : &outputs);
      if (fold) held += put_beside(&call.lse, true, call.lse.scalar_type(), &folds);
      calls.push_back(std::move(call));
      if (held >= kHeldElements) flush();
    }
    flush();
  }

  // Kernels take the output and use its row sums with the gradient alone: this one has those that delta says.
  static at::Tensor output_for(const at::Tensor& delta, const at::Tensor& grad_output) {
    const at::Tensor gradient = grad_output.to(delta.scalar_type());
    const at::Tensor squares = gradient.square().sum(-1);
    const at::Tensor scale = at::where(squares.gt(0), delta / squares, 0.0);
    return gradient.mul(scale.unsqueeze(-1)).to(grad_output.scalar_type());
  }

  void execute(const plan::AttendGradient& attend) {
    const at::ScalarType type = scalar_type(shape_.element);
    std::vector<KernelCall> calls;
    std::vector<Beside> merges;
    int64_t held = 0;
    const auto flush = [&] {
      run::attend_gradient(calls);
      for (const Beside& merge : merges) merge.add ? merge.to.add_(merge.from) : merge.to.copy_(merge.from);
      calls.clear();
      merges.clear();
      held = 0;
    };
    for (const auto& batch : tile_batches(attend, shape_)) {
      KernelCall call = call_of<plan::AttendGradient>(batch);
      if (batch.first->output.tensor == TensorName::delta) {
        call.output = output_for(call.output, call.grad_output);
        held += call.output.numel();
      }
      held += put_beside(&call.grad_query, batch.first->grad_query.add, type, &merges);
      held += put_beside(&call.grad_key, batch.first->grad_key.add, type, &merges);
      held += put_beside(&call.grad_value, batch.first->grad_value.add, type, &merges);
      calls.push_back(std::move(call));
      if (held >= kHeldElements) flush();
    }
    flush();
  }

  void execute(const plan::Copy& copy) {
    for (const auto& [to, from] : copy.items) view(to).copy_(view(from));
  }

  void execute(const plan::Accumulate& accumulate) {
    for (const auto& [to, from] : accumulate.items) view(to).add_(view(from));
  }

  void execute(const plan::Merge& merge) {
    for (const auto& [output, lse, from_output, from_lse] : merge.items) {
      merge_partials(view(output), view(lse), view(from_output), view(from_lse));
    }
  }

  void execute(const plan::Delta& delta) {
    for (const auto& rows : delta.items) {
      const at::Tensor to = view(rows.delta);
      to.copy_(view(rows.output).to(to.scalar_type()).mul(view(rows.grad_output)).sum(-1));
    }
  }

  void execute(const plan::Clear& clear) {
    for (const Block& block : clear.items) {
      view(block).fill_(block.tensor == TensorName::lse ? -std::numeric_limits<double>::infinity() : 0.0);
    }
  }

  // The matrices of a state block, [heads, key_dim, value_dim], or of a transition as LinearSummary has it.
  at::Tensor state(const Block& block) const {
    const int64_t key_dim = shape_.head_dim, heads = block.heads.size(), width = plan::width(block.tensor, shape_);
    const at::Tensor& memory = block.buffer == BufferId::home ? memory_.home_of(block.tensor) : bytes_of(block);
    const auto type = c10::scalarTypeToTypeMeta(scalar_type(plan::accumulation_type(shape_.element)));
    const int64_t start =
        memory.storage_offset() * static_cast<int64_t>(memory.element_size()) / static_cast<int64_t>(type.itemsize()) +
        block.offset_bytes / plan::element_bytes(block, shape_);
    const bool transition = block.tensor == TensorName::transition;
    if (transition && shape_.state.transition() != plan::Transition::dense) {
      return make_view(memory, type, {heads, width}, {width, 1}, start);
    }
    const int64_t columns = transition ? key_dim : shape_.state.value_dim;
    return make_view(memory, type, {heads, key_dim, columns}, {width, columns, 1}, start);
  }
  at::Tensor state(const std::optional<Block>& block) const { return block ? state(*block) : at::Tensor(); }

  template <class Item>
  static std::vector<RowRange> rows_of(const std::vector<Item>& items) {
    std::vector<RowRange> rows;
    for (const Item& item : items) rows.emplace_back(item.part.home_row, item.part.home_row + item.part.rows.size());
    return rows;
  }

  void execute(const plan::Summarize& summarize) {
    std::vector<LinearSummary> summaries;
    for (const plan::PartSummary& item : summarize.items) {
      summaries.push_back({state(item.summary), transition_of(item)});
    }
    memory_.linear.forward->summarize(rows_of(summarize.items), summaries);
  }

  void execute(const plan::SummarizeGradient& summarize) {
    std::vector<at::Tensor> gradients;
    for (const plan::PartGradientSummary& item : summarize.items) gradients.push_back(state(item.summary));
    memory_.linear.backward->summarize(rows_of(summarize.items), gradients);
  }

  // Kernels always write it: where nobody needs a part's transition, beside the arena.
  at::Tensor transition_of(const plan::PartSummary& part) const {
    if (part.transition || shape_.state.transition() == plan::Transition::known) return state(part.transition);
    const int64_t heads = part.summary.heads.size(), key_dim = shape_.head_dim;
    const auto options = at::TensorOptions()
                             .dtype(scalar_type(plan::accumulation_type(shape_.element)))
                             .device(bytes_of(part.summary).device());
    if (shape_.state.transition() == plan::Transition::dense) return at::empty({heads, key_dim, key_dim}, options);
    return at::empty({heads, plan::width(TensorName::transition, shape_)}, options);
  }

  void execute(const plan::Combine& combine) {
    for (const plan::Composition& c : combine.items) compose(c, /*transposed=*/false);
  }
  void execute(const plan::CombineGradient& combine) {
    for (const plan::Composition& c : combine.items) compose(c, /*transposed=*/true);
  }

  // `transposed`: of the maps of gradients, which apply the transition of `near` transposed, and after that of `far`.
  void compose(const plan::Composition& c, bool transposed) {
    at::Tensor to = state(c.to);
    const at::Tensor far = state(c.far), near = state(c.near);
    const at::Tensor transition = state(c.near_transition);
    const bool dense = shape_.state.transition() == plan::Transition::dense;
    if (dense) {
      at::baddbmm_out(to, near, transposed ? transition.transpose(1, 2) : transition, far);
    } else if (const at::Tensor factor = factor_of(c, transition); factor.defined()) {
      at::addcmul_out(to, near, factor, far);
    } else {
      at::add_out(to, near, far);
    }
    if (!c.to_transition) return;
    at::Tensor target = state(*c.to_transition);
    const at::Tensor other = state(c.far_transition);
    if (dense) {
      transposed ? at::bmm_out(target, other, transition) : at::bmm_out(target, transition, other);
    } else {
      at::add_out(target, other, transition);
    }
  }

  // What M multiplies the rows of a state by, [heads, 1 or key_dim, 1]; undefined for the identity.
  at::Tensor factor_of(const plan::Composition& c, const at::Tensor& transition) const {
    if (transition.defined()) return transition.exp().unsqueeze(-1);
    const at::Tensor& decay = memory_.linear.log_decay;
    if (!decay.defined()) return {};
    const HeadRange heads = c.near.heads;
    return (decay.slice(0, heads.begin, heads.end) * static_cast<double>(c.near.rows.size())).exp_().view({-1, 1, 1});
  }

  template <class Item>
  static std::vector<char> pending_of(const std::vector<Item>& items) {
    std::vector<char> pending;
    for (const Item& item : items) pending.push_back(item.pending ? 1 : 0);
    return pending;
  }
  template <class Item>
  std::vector<at::Tensor> states_of(const std::vector<Item>& items) const {
    std::vector<at::Tensor> states;
    for (const Item& item : items) states.push_back(state(item.state));
    return states;
  }

  void execute(const plan::Intra& intra) {
    memory_.linear.forward->intra(rows_of(intra.items), pending_of(intra.items));
  }

  void execute(const plan::IntraGradient& intra) {
    memory_.linear.backward->intra(rows_of(intra.items), states_of(intra.items), pending_of(intra.items));
  }

  void execute(const plan::Apply& apply) {
    memory_.linear.forward->apply(rows_of(apply.items), states_of(apply.items));
  }

  void execute(const plan::ApplyGradient& apply) {
    std::vector<at::Tensor> gradients;
    for (const plan::ApplyGradientPart& item : apply.items) gradients.push_back(state(item.grad_state));
    memory_.linear.backward->apply(rows_of(apply.items), states_of(apply.items), gradients);
  }

  const plan::AttentionShape& shape_;
  const Memory& memory_;
  const comm::Communicator& communicator_;
  const std::string& name_;
  std::map<plan::Event, std::unique_ptr<comm::Work>> works_;
};

}  // namespace

void run_phase(const plan::Phase& phase, const plan::AttentionShape& shape, const Memory& memory,
               const comm::Communicator& communicator, const std::string& name) {
  Interpreter(shape, memory, communicator, name).run(phase);
}

}  // namespace evenspan::run
