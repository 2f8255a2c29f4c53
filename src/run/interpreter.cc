#include "run/interpreter.h"

#include <ATen/ops/as_strided.h>
#include <ATen/ops/logaddexp.h>

#include <limits>
#include <map>
#include <memory>

#include "evenspan/core/error.h"
#include "run/entry.h"
#include "run/kernels.h"

namespace evenspan::run {
namespace {

using plan::Block;
using plan::Storage;
using plan::TensorName;

// Results of kernel calls that are held at once, in elements of outputs or gradients: bounds memory beside the arena,
// and is enough to keep all threads busy.
constexpr int64_t kHeldElements = int64_t{1} << 22;

class Interpreter {
 public:
  Interpreter(const plan::AttentionShape& shape, const Memory& memory, const comm::Communicator& communicator,
              const std::string& name)
      : shape_(shape), memory_(memory), communicator_(communicator), name_(name) {}

  void run(const plan::Program& program) {
    for (const plan::Operation& operation : program.operations) {
      for (const int32_t exchange : operation.waits) wait(exchange);
      std::visit([this](const auto& body) { execute(body); }, operation.body);
    }
    while (!works_.empty()) wait(works_.begin()->first);
  }

 private:
  void wait(int32_t exchange) {
    const auto at = works_.find(exchange);
    if (at == works_.end()) return;
    at->second->wait();
    works_.erase(at);
  }

  at::ScalarType type_of(const Block& block) const {
    return scalar_type(block.precision == plan::Precision::input ? shape_.element
                                                                 : plan::accumulation_type(shape_.element));
  }

  const at::Tensor& buffer(Storage storage) const { return storage == Storage::arena ? memory_.arena : memory_.saved; }

  // [rows, heads, width], or [rows, heads] for lse.
  at::Tensor view(const Block& block) const {
    const int64_t element = plan::element_bytes(block, shape_);
    const int64_t width = plan::width(block.tensor, shape_);
    const int64_t offset = block.offset_bytes / element;
    const int64_t rows = block.rows.size(), heads = block.heads.size();
    if (block.storage == Storage::home) {
      const at::Tensor& home = memory_.home[static_cast<size_t>(block.tensor)];
      const int64_t row = offset / block.row_stride, head = offset % block.row_stride / width;
      return home.narrow(0, row, rows).narrow(1, head, heads);
    }
    const at::Tensor typed = buffer(block.storage).view(type_of(block));
    if (block.tensor == TensorName::lse) return typed.as_strided({rows, heads}, {block.row_stride, 1}, offset);
    return typed.as_strided({rows, heads, width}, {block.row_stride, width, 1}, offset);
  }

  at::Tensor message_bytes(const plan::Message& message) const {
    const Block& first = message.blocks.front();
    if (first.storage == Storage::home) return view(first).contiguous().view({-1}).view(at::kByte);
    int64_t bytes = 0;
    for (const Block& block : message.blocks) bytes += plan::payload_bytes(block, shape_);
    return buffer(first.storage).narrow(0, first.offset_bytes, bytes);
  }

  void execute(const plan::Exchange& exchange) {
    std::vector<comm::Transfer> sends, receives;
    for (const auto& message : exchange.sends) sends.push_back({message.peer, message_bytes(message)});
    for (const auto& message : exchange.receives) receives.push_back({message.peer, message_bytes(message)});
    works_[exchange.id] =
        communicator_.exchange(std::move(sends), std::move(receives), join_text(name_, ", exchange ", exchange.id));
  }

  KernelCall call_of(const plan::Segment& segment) const {
    KernelCall call;
    call.kind = segment.kind;
    call.first_query = segment.query.rows.begin;
    call.first_key = segment.key.rows.begin;
    call.window = segment.window;
    call.query = view(segment.query);
    call.key = view(segment.key);
    call.value = view(segment.value);
    return call;
  }

  // Calls f(first, last) for ranges of segments whose results are held together.
  template <class Segments, class Size, class F>
  void for_each_batch(const Segments& segments, Size&& size, F&& f) {
    for (size_t first = 0; first < segments.size();) {
      size_t last = first;
      for (int64_t held = 0; last < segments.size() && (last == first || held < kHeldElements); ++last) {
        held += size(segments[last]);
      }
      f(first, last);
      first = last;
    }
  }

  void execute(const plan::Attend& attend) {
    const auto& segments = attend.segments;
    const auto size = [this](const plan::Segment& s) { return plan::payload_bytes(s.query, shape_); };
    for_each_batch(segments, size, [&](size_t first, size_t last) {
      std::vector<KernelCall> calls;
      for (size_t i = first; i < last; ++i) calls.push_back(call_of(segments[i]));
      const std::vector<KernelResult> results = run::attend(calls);
      for (size_t i = first; i < last; ++i) {
        const KernelResult& result = results[i - first];
        at::Tensor output = view(segments[i].output);
        at::Tensor lse = view(segments[i].lse);
        if (segments[i].fold) {
          fold(result, &output, &lse);
        } else {
          output.copy_(result.output);
          lse.copy_(result.lse);
        }
      }
    });
  }

  // Every segment row has a key, so the sum's log-sum-exp is finite and an empty partial gets weight exp(-inf) = 0.
  static void fold(const KernelResult& part, at::Tensor* output, at::Tensor* lse) {
    const at::Tensor sum = at::logaddexp(*lse, part.lse);
    output->mul_((*lse - sum).exp_().unsqueeze(-1));
    output->addcmul_(part.output.to(output->scalar_type()), (part.lse - sum).exp_().unsqueeze(-1));
    lse->copy_(sum);
  }

  void execute(const plan::AttendGradient& attend) {
    const auto& segments = attend.segments;
    const auto size = [this](const plan::SegmentGradient& s) {
      return plan::payload_bytes(s.forward.query, shape_) + 2 * plan::payload_bytes(s.forward.key, shape_);
    };
    for_each_batch(segments, size, [&](size_t first, size_t last) {
      std::vector<KernelCall> calls;
      for (size_t i = first; i < last; ++i) {
        KernelCall call = call_of(segments[i].forward);
        call.output = view(segments[i].forward.output);
        call.lse = view(segments[i].forward.lse);
        call.grad_output = view(segments[i].grad_output);
        calls.push_back(std::move(call));
      }
      const std::vector<KernelGradients> results = run::attend_gradient(calls);
      for (size_t i = first; i < last; ++i) {
        put(results[i - first].query, segments[i].grad_query);
        put(results[i - first].key, segments[i].grad_key);
        put(results[i - first].value, segments[i].grad_value);
      }
    });
  }

  void put(const at::Tensor& gradient, const plan::GradientTarget& target) const {
    at::Tensor to = view(target.block);
    if (target.add) {
      to.add_(gradient);
    } else {
      to.copy_(gradient);
    }
  }

  void execute(const plan::Copy& copy) {
    for (const auto& [to, from] : copy.pairs) view(to).copy_(view(from));
  }

  void execute(const plan::Accumulate& accumulate) {
    for (const auto& [to, from] : accumulate.pairs) view(to).add_(view(from));
  }

  void execute(const plan::Clear& clear) {
    for (const Block& block : clear.blocks) {
      view(block).fill_(block.tensor == TensorName::lse ? -std::numeric_limits<double>::infinity() : 0.0);
    }
  }

  const plan::AttentionShape& shape_;
  const Memory& memory_;
  const comm::Communicator& communicator_;
  const std::string& name_;
  std::map<int32_t, std::unique_ptr<comm::Work>> works_;
};

}  // namespace

void run_program(const plan::Program& program, const plan::AttentionShape& shape, const Memory& memory,
                 const comm::Communicator& communicator, const std::string& name) {
  Interpreter(shape, memory, communicator, name).run(program);
}

}  // namespace evenspan::run
