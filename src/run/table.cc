#include "run/table.h"

#include <ATen/ops/from_blob.h>

#include <map>
#include <mutex>

#include "evenspan/core/error.h"

namespace evenspan::run {
namespace {

struct Table {
  std::mutex mutex;
  std::map<int64_t, std::weak_ptr<Executable::Entry>> entries;
  int64_t next = 1;
};

Table& table() {
  static auto* table = new Table;  // never destroyed: handles may outlive static destruction
  return *table;
}

}  // namespace

at::Tensor make_handle(std::shared_ptr<Executable::Entry> entry) {
  Table& all = table();
  const std::lock_guard lock(all.mutex);
  auto number = std::make_unique<int64_t>(all.next++);
  all.entries[*number] = entry;
  int64_t* data = number.get();
  const auto release = [number = std::shared_ptr<int64_t>(std::move(number)), entry](void*) {
    Table& all = table();
    const std::lock_guard lock(all.mutex);
    all.entries.erase(*number);
  };
  return at::from_blob(data, {}, release, at::TensorOptions().dtype(at::kLong));
}

std::shared_ptr<Executable::Entry> find_entry(const at::Tensor& handle) {
  if (!handle.device().is_cpu() || handle.scalar_type() != at::kLong || handle.numel() != 1) {
    fail_invalid("[attention] the executable is a ", handle.toString(), " with ", handle.numel(),
                 " elements; give the 0-d CPU int64 tensor of Executable::handle()");
  }
  const int64_t number = *handle.const_data_ptr<int64_t>();
  Table& all = table();
  const std::lock_guard lock(all.mutex);
  const auto at = all.entries.find(number);
  auto entry = at == all.entries.end() ? nullptr : at->second.lock();
  if (!entry)
    fail_invalid("[attention] no live executable has number ", number, "; keep the executable while it is used");
  return entry;
}

}  // namespace evenspan::run
