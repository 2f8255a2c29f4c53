#include "train/model_work.h"

#include <algorithm>

#include "evenspan/nn/decoder.h"
#include "evenspan/plan/halo.h"
#include "evenspan/plan/linear.h"

namespace evenspan::train {
namespace {

// Equal chunks of every document, as `ring` places them.
plan::Placement equal_chunks(const plan::Documents& documents, int32_t num_ranks) {
  std::vector<std::vector<plan::PlacedSpan>> spans(static_cast<size_t>(num_ranks));
  for (DocumentId d(0); d < documents.size(); ++d.value) {
    for (int32_t r = 0; r < num_ranks; ++r) {
      spans[static_cast<size_t>(r)].push_back({d, equal_part(documents[d].length, r, num_ranks)});
    }
  }
  return {documents, std::move(spans)};
}

// The parts of documents that another part comes before.
int64_t num_continued_parts(const plan::Placement& placement) {
  int64_t parts = 0;
  for (Rank rank(0); rank < placement.num_ranks(); ++rank.value) {
    for (const plan::PlacedSpan& placed : placement.spans(rank)) parts += placed.span.begin > 0 ? 1 : 0;
  }
  return parts;
}

std::vector<simulate::LinearLayers> linear_layers(const nn::ModelConfig& m, plan::ElementType element) {
  std::vector<simulate::LinearLayers> kinds;
  for (const std::string& type : nn::linear_layer_types()) {
    const auto count = static_cast<int32_t>(std::count(m.layer_types.begin(), m.layer_types.end(), type));
    if (count > 0) kinds.push_back({count, nn::linear_shape(m, type, element)});
  }
  return kinds;
}

}  // namespace

simulate::Model simulated_model(const nn::ModelConfig& m, plan::ElementType element) {
  simulate::Model model;
  model.shape = {static_cast<int32_t>(m.num_attention_heads), static_cast<int32_t>(m.num_key_value_heads),
                 static_cast<int32_t>(m.head_dim), element};
  model.num_layers = static_cast<int32_t>(m.num_hidden_layers);
  model.linear = linear_layers(m, element);
  model.hidden = m.hidden_size;
  model.intermediate = m.intermediate_size;
  model.vocabulary = m.vocab_size;
  return model;
}

ForwardBytes forward_bytes(const nn::ModelConfig& m, const plan::Plan& plan, const plan::Metrics& metrics,
                           const std::string& transport) {
  ForwardBytes bytes{metrics.sent_bytes_total * m.num_softmax_layers(),
                     metrics.ring_bytes_total * m.num_softmax_layers()};
  if (m.num_softmax_layers() == m.num_hidden_layers) return bytes;
  const plan::ElementType element = plan.request.shape.element;
  const plan::Placement chunks = equal_chunks(plan.request.documents, plan.placement.num_ranks());
  for (const simulate::LinearLayers& kind : linear_layers(m, element)) {
    bytes.planned += kind.count * plan::forward_traffic(plan, kind.shape, {transport, 0}).bytes(kind.shape);
    bytes.by_ring += kind.count * plan::StateTraffic{num_continued_parts(chunks), 0, 0}.bytes(kind.shape);
  }
  if (m.linear_conv_kernel > 0) {
    const int64_t row_bytes =
        m.linear_num_heads * (2 * m.linear_key_dim + m.linear_value_dim) * plan::num_bytes(element);
    const int64_t layers = m.num_hidden_layers - m.num_softmax_layers();
    const auto width = static_cast<int32_t>(m.linear_conv_kernel);
    bytes.planned += layers * row_bytes * plan::num_fetched_rows(plan.placement, width);
    bytes.by_ring += layers * row_bytes * plan::num_fetched_rows(chunks, width);
  }
  return bytes;
}

int64_t buffer_bytes(const nn::ModelConfig& m, const plan::Plan& plan, const plan::RankProgram& program,
                     const std::string& transport, Rank rank) {
  int64_t arena = 0, saved = 0;
  const auto add = [&](const plan::RankProgram& layer, int64_t count) {
    if (count > 0) arena = std::max(arena, layer.bytes(plan::Lifetime::phase));
    saved += count * layer.bytes(plan::Lifetime::step);
  };
  add(program, m.num_softmax_layers());
  for (const simulate::LinearLayers& kind : linear_layers(m, plan.request.shape.element)) {
    add(plan::lower_linear(plan, kind.shape, {transport, 0}, rank), kind.count);
  }
  return arena + saved;
}

}  // namespace evenspan::train
