// What the proofs share: how a finding is raised, and the sizes of the plan language. A proof stops at its first
// finding by throwing it; verify() catches it.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "evenspan/core/error.h"
#include "evenspan/plan/program.h"
#include "evenspan/plan/verify.h"

namespace evenspan::plan::proofs {

struct Refuted {
  Finding finding;
};

// Where in a plan; -1 as in Finding.
struct Site {
  int32_t rank = -1;
  int32_t operation = -1;
  PhaseKind phase = PhaseKind::forward;

  bool in_backward() const { return phase == PhaseKind::backward; }
};

template <class... Parts>
[[noreturn]] void refute(Proof proof, Site site, const Parts&... parts) {
  throw Refuted{Finding{proof, site.rank, site.operation, site.phase, join_text(parts...)}};
}

// "key of document 3, rows [0, 64), heads [0, 2), input, arena at byte 4096"
std::string describe(const Block& block);
std::string describe(Span rows);
std::string describe(HeadRange heads);

// Rows of `row_bytes` bytes, `pitch` bytes from one to the next.
struct Area {
  int64_t begin = 0;
  int64_t pitch = 0;  // row_bytes when there is one row
  int64_t num_rows = 1;
  int64_t row_bytes = 0;

  int64_t end() const { return begin + (num_rows - 1) * pitch + row_bytes; }
  bool dense() const { return pitch == row_bytes; }
};

constexpr bool is_gradient(TensorName tensor) {
  return (tensor >= TensorName::grad_query && tensor <= TensorName::grad_value) || tensor == TensorName::grad_gate ||
         tensor == TensorName::grad_beta;
}
constexpr bool is_partial(TensorName tensor) {
  return (tensor >= TensorName::output && tensor <= TensorName::delta) || is_gradient(tensor);
}
// States that the caller gives where they are at home; all others are written by a program.
constexpr bool is_given_state(TensorName tensor) {
  return tensor == TensorName::state || tensor == TensorName::grad_state;
}
// One number per row and head, of the accumulation type.
constexpr bool is_number(TensorName tensor) { return tensor == TensorName::lse || tensor == TensorName::delta; }
constexpr bool has_kv_heads(TensorName tensor) {
  return tensor == TensorName::key || tensor == TensorName::value || tensor == TensorName::grad_key ||
         tensor == TensorName::grad_value;
}

// Sizes that follow from the attention shape. REQUIRES: the shape is valid.
class Sizes {
 public:
  explicit Sizes(const AttentionShape& shape);

  int32_t num_heads(TensorName tensor) const { return has_kv_heads(tensor) ? num_kv_heads_ : num_heads_; }
  int64_t width(TensorName tensor) const { return widths_[static_cast<size_t>(tensor)]; }
  int64_t element_bytes(Precision precision) const { return element_bytes_[static_cast<size_t>(precision)]; }
  int64_t head_bytes(TensorName tensor, Precision precision) const { return width(tensor) * element_bytes(precision); }
  // Whether Precision::input loses digits of what Precision::accumulation holds.
  bool input_rounds() const { return input_rounds_; }

  Area area(const Block& block) const;

 private:
  int32_t num_heads_;
  int32_t num_kv_heads_;
  std::array<int64_t, kNumTensorNames> widths_{};
  std::array<int64_t, 2> element_bytes_;  // [Precision]
  bool input_rounds_;
};

// One segment of an Attend or AttendGradient of the plan.
struct SegmentUse {
  const Segment* segment;
  Site site;
};

// The segments of all ranks in one phase, by rank and program order: the order that numbers their contributions.
std::vector<SegmentUse> segments_of(const LoweredPlan& plan, PhaseKind phase);

// The phases of a plan of this shape, in order, the same on every rank.
std::span<const PhaseKind> phases_of(const AttentionShape& shape);

const Phase& phase_of(const LoweredPlan& plan, int32_t rank, PhaseKind phase);

// The proofs. Each throws Refuted at its first finding. All but prove_well_formed require a well-formed plan.
void prove_well_formed(const LoweredPlan& plan);          // whatever a text can hold that is no plan at all
void prove_memory(const LoweredPlan& plan);               // 5
void prove_coverage(const LoweredPlan& plan);             // 1
void prove_linear_coverage(const LoweredPlan& plan);      // 1, and 4 of outputs, of a linear layer
void prove_matching(const LoweredPlan& plan);             // 3
void prove_dataflow_and_result(const LoweredPlan& plan);  // 2 and 4. REQUIRES: matching is proven

}  // namespace evenspan::plan::proofs
