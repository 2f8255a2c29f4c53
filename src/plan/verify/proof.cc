#include "plan/verify/proof.h"

namespace evenspan::plan::proofs {

std::string describe(Span rows) { return join_text("[", rows.begin, ", ", rows.end, ")"); }
std::string describe(HeadRange heads) { return join_text("[", heads.begin, ", ", heads.end, ")"); }

std::string describe(const Block& block) {
  return join_text(to_string(block.tensor), " of document ", block.document, ", rows ", describe(block.rows),
                   ", heads ", describe(block.heads),
                   block.precision == Precision::input ? ", input, " : ", accumulation, ", to_string(block.buffer),
                   " at byte ", block.offset_bytes);
}

Sizes::Sizes(const AttentionShape& shape)
    : num_heads_(shape.num_heads),
      num_kv_heads_(shape.num_kv_heads),
      element_bytes_{num_bytes(shape.element), num_bytes(accumulation_type(shape.element))},
      input_rounds_(accumulation_type(shape.element) != shape.element) {
  for (size_t t = 0; t < widths_.size(); ++t) widths_[t] = plan::width(static_cast<TensorName>(t), shape);
}

Area Sizes::area(const Block& block) const {
  const int64_t row_bytes = block.heads.size() * head_bytes(block.tensor, block.precision);
  const int64_t num_rows = plan::num_rows(block);
  const int64_t pitch = num_rows == 1 ? row_bytes : block.row_stride * element_bytes(block.precision);
  return Area{block.offset_bytes, pitch, num_rows, row_bytes};
}

std::span<const PhaseKind> phases_of(const AttentionShape& shape) {
  static constexpr PhaseKind kSoftmax[] = {PhaseKind::forward, PhaseKind::backward};
  static constexpr PhaseKind kLinear[] = {PhaseKind::forward, PhaseKind::recompute, PhaseKind::backward};
  return shape.is_linear() ? std::span<const PhaseKind>(kLinear) : kSoftmax;
}

const Phase& phase_of(const LoweredPlan& plan, int32_t rank, PhaseKind phase) {
  return plan.programs[static_cast<size_t>(rank)].phase(phase);
}

std::vector<SegmentUse> segments_of(const LoweredPlan& plan, PhaseKind phase) {
  std::vector<SegmentUse> uses;
  for (int32_t rank = 0; rank < static_cast<int32_t>(plan.programs.size()); ++rank) {
    const auto& operations = phase_of(plan, rank, phase).operations;
    for (int32_t i = 0; i < static_cast<int32_t>(operations.size()); ++i) {
      const auto& body = operations[static_cast<size_t>(i)].body;
      const Site site{rank, i, phase};
      if (const auto* attend = std::get_if<Attend>(&body)) {
        for (const Segment& segment : attend->items) uses.push_back(SegmentUse{&segment, site});
      } else if (const auto* gradient = std::get_if<AttendGradient>(&body)) {
        for (const Segment& segment : gradient->items) uses.push_back(SegmentUse{&segment, site});
      }
    }
  }
  return uses;
}

}  // namespace evenspan::plan::proofs
