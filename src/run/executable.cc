#include "evenspan/run/executable.h"

#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>

#include <sstream>

#include "evenspan/core/error.h"
#include "run/entry.h"
#include "run/interpreter.h"
#include "run/table.h"

namespace evenspan::run {

using plan::TensorName;

at::ScalarType scalar_type(plan::ElementType type) {
  switch (type) {
    case plan::ElementType::bf16:
      return at::kBFloat16;
    case plan::ElementType::f16:
      return at::kHalf;
    case plan::ElementType::f32:
      return at::kFloat;
    case plan::ElementType::f64:
      return at::kDouble;
  }
  return at::kFloat;
}

Executable::Entry::Entry(std::shared_ptr<const plan::Plan> plan, comm::Communicator communicator, at::Device device,
                         Rethrow rethrow)
    : plan_(std::move(plan)), communicator_(std::move(communicator)), device_(device), rethrow_(std::move(rethrow)) {
  if (!plan_ || !communicator_) fail_invalid("[bind] no plan or no communicator; give both");
  compare_hashes();
  if (communicator_.size() != plan_->request.num_ranks()) {
    fail_invalid("[bind] the plan is for ", plan_->request.num_ranks(), " ranks, the communicator has ",
                 communicator_.size(), "; plan for the communicator's size");
  }
  std::ostringstream name;
  name << "plan " << std::hex << plan_->hash.combined();
  plan_name_ = name.str();
  program_ = call("bind", "", [this] { return plan::lower(*plan_, communicator_.rank()); });
}

void Executable::Entry::compare_hashes() const {
  std::vector<comm::ComparedValue> parts;
  for (size_t i = 0; i < plan_->hash.parts.size(); ++i) {
    parts.push_back({plan::PlanHash::kParts[i], plan_->hash.parts[i]});
  }
  comm::compare(communicator_, parts, {"plan check", "plans", "give every rank the same batch and options", device_});
}

void Executable::Entry::check_rows(const char* name, const at::Tensor& tensor, int32_t num_heads) const {
  const int64_t rows = plan_->placement.num_tokens(communicator_.rank());
  const auto& shape = plan_->request.shape;
  if (!tensor.defined() || tensor.dim() != 3 || tensor.size(0) != rows || tensor.size(1) != num_heads ||
      tensor.size(2) != shape.head_dim) {
    fail_invalid("[attention] ", name, " has shape ", tensor.defined() ? join_text(tensor.sizes()) : "undefined",
                 "; rank ", communicator_.rank(), " of the plan has [", rows, ", ", num_heads, ", ", shape.head_dim,
                 "]: rows of the placement, heads, head dimension");
  }
  if (tensor.layout() != at::kStrided) {
    fail_invalid("[attention] ", name, " has the layout ", tensor.layout(), "; give a dense tensor");
  }
  if (tensor.scalar_type() != scalar_type(shape.element)) {
    fail_invalid("[attention] ", name, " is ", tensor.scalar_type(), ", the plan is for ", scalar_type(shape.element),
                 "; convert it or plan for its type");
  }
  if (tensor.device() != device_) {
    fail_invalid("[attention] ", name, " is on ", tensor.device(), ", the executable on ", device_,
                 "; move it or bind the plan to its device");
  }
}

at::Tensor Executable::Entry::make_saved(const plan::RankProgram& program) {
  const std::lock_guard lock(saved_mutex_);
  auto number = std::make_shared<int64_t>(next_saved_++);
  std::vector<at::Tensor>& saved = saved_[*number];
  for (const auto& [lifetime, bytes] : program.buffers) {
    saved.push_back(lifetime == plan::Lifetime::step ? make_bytes(bytes) : at::Tensor());
  }
  int64_t* data = number.get();
  const auto release = [number, entry = shared_from_this()](void*) {
    const std::lock_guard lock(entry->saved_mutex_);
    entry->saved_.erase(*number);
  };
  return at::from_blob(data, {}, release, at::TensorOptions().dtype(at::kLong));
}

at::Tensor Executable::Entry::make_bytes(int64_t num_bytes) const {
  return at::empty({num_bytes}, at::TensorOptions().dtype(at::kByte).device(device_));
}

std::vector<at::Tensor> Executable::Entry::buffers(const plan::RankProgram& program, const at::Tensor& saved) {
  const std::lock_guard lock(saved_mutex_);
  const int64_t number = *saved.const_data_ptr<int64_t>();
  const auto at = saved_.find(number);
  if (at == saved_.end()) {
    fail_invalid("[attention] run ", number, " of this executable has no saved activations; run forward first");
  }
  std::vector<at::Tensor> all = at->second;
  phase_buffers_.resize(std::max(phase_buffers_.size(), all.size()));
  for (size_t b = 0; b < all.size(); ++b) {
    const auto& [lifetime, bytes] = program.buffers[b];
    if (lifetime != plan::Lifetime::phase) continue;
    if (!phase_buffers_[b].defined() || phase_buffers_[b].numel() < bytes) phase_buffers_[b] = make_bytes(bytes);
    all[b] = phase_buffers_[b];
  }
  return all;
}

Executable::Entry::Forward Executable::Entry::forward(const at::Tensor& query, const at::Tensor& key,
                                                      const at::Tensor& value) {
  const at::AutoDispatchBelowADInplaceOrView guard;
  const auto& shape = plan_->request.shape;
  return call("attention forward", "", [&] {
    check_rows("query", query, shape.num_heads);
    check_rows("key", key, shape.num_kv_heads);
    check_rows("value", value, shape.num_kv_heads);
    Memory memory;
    memory.home_of(TensorName::query) = rows_contiguous(query);
    memory.home_of(TensorName::key) = rows_contiguous(key);
    memory.home_of(TensorName::value) = rows_contiguous(value);
    memory.home_of(TensorName::output) = at::empty(query.sizes(), query.options());
    const at::Tensor saved = make_saved(program_);
    memory.buffers = buffers(program_, saved);
    run_phase(program_.phase(plan::PhaseKind::forward), shape, memory, communicator_, "attention forward");
    return Forward{memory.home_of(TensorName::output), saved};
  });
}

Executable::Entry::Gradients Executable::Entry::backward(const at::Tensor& grad_output, const at::Tensor& query,
                                                         const at::Tensor& key, const at::Tensor& value,
                                                         const at::Tensor& output, const at::Tensor& saved) {
  const at::AutoDispatchBelowADInplaceOrView guard;
  const auto& shape = plan_->request.shape;
  return call("attention backward", "", [&] {
    check_rows("gradient of the output", grad_output, shape.num_heads);
    Memory memory;
    memory.home_of(TensorName::query) = rows_contiguous(query);
    memory.home_of(TensorName::key) = rows_contiguous(key);
    memory.home_of(TensorName::value) = rows_contiguous(value);
    memory.home_of(TensorName::output) = rows_contiguous(output);
    memory.home_of(TensorName::grad_output) = rows_contiguous(grad_output);
    memory.home_of(TensorName::grad_query) = at::empty(query.sizes(), query.options());
    memory.home_of(TensorName::grad_key) = at::empty(key.sizes(), key.options());
    memory.home_of(TensorName::grad_value) = at::empty(value.sizes(), value.options());
    memory.buffers = buffers(program_, saved);
    run_phase(program_.phase(plan::PhaseKind::backward), shape, memory, communicator_, "attention backward");
    return Gradients{memory.home_of(TensorName::grad_query), memory.home_of(TensorName::grad_key),
                     memory.home_of(TensorName::grad_value)};
  });
}

Executable::Executable(std::shared_ptr<const plan::Plan> plan, comm::Communicator communicator, at::Device device,
                       Rethrow rethrow)
    : entry_(std::make_shared<Entry>(std::move(plan), std::move(communicator), device, std::move(rethrow))) {}

const plan::Plan& Executable::plan() const { return entry_->plan(); }
const plan::RankProgram& Executable::program() const { return entry_->program(); }
Rank Executable::rank() const { return entry_->communicator().rank(); }
int64_t Executable::num_tokens() const { return plan().placement.num_tokens(rank()); }
at::Tensor Executable::handle() const { return make_handle(entry_); }

}  // namespace evenspan::run
