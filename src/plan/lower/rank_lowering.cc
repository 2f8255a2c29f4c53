#include "plan/lower/rank_lowering.h"

#include <algorithm>
#include <set>

#include "evenspan/core/error.h"

namespace evenspan::plan {

const Holding* Holdings::find(Operand operand, DocumentId document, Span rows, HeadRange heads) const {
  const auto at = by_document_.find({operand, document});
  if (at == by_document_.end()) return nullptr;
  for (const Holding& holding : at->second) {
    if (holding.rows.contains(rows) && holding.heads.contains(heads)) return &holding;
  }
  return nullptr;
}

Combination combine(Span rows, HeadRange heads, const std::vector<Contribution>& contributions) {
  Combination result;
  result.adds.assign(contributions.size(), 0);
  int64_t area = 0;
  for (size_t i = 0; i < contributions.size(); ++i) {
    const Contribution& a = contributions[i];
    area += a.rows.size() * a.heads.size();
    for (size_t j = 0; j < i && !result.overlap; ++j) {
      result.overlap = a.rows.overlaps(contributions[j].rows) && a.heads.overlaps(contributions[j].heads);
    }
  }
  if (!result.overlap) {
    result.clear = area != rows.size() * heads.size();
    return result;
  }
  const bool first_covers = contributions[0].rows == rows && contributions[0].heads == heads;
  result.clear = !first_covers;
  for (size_t i = first_covers ? 1 : 0; i < contributions.size(); ++i) result.adds[i] = 1;
  return result;
}

RankLowering::RankLowering(const Plan& plan, Rank rank)
    : plan_(plan), shape_(plan.request.shape), placement_(plan.placement), rank_(rank) {
  const auto num_rounds = static_cast<size_t>(plan.num_rounds);
  rounds_.resize(num_rounds);
  for (auto* moves : {&arrivals_, &departures_, &output_arrivals_, &output_departures_}) moves->resize(num_rounds);
  const auto [first, last] = std::equal_range(plan.tasks.begin(), plan.tasks.end(), Task{rank, 0, {}},
                                              [](const Task& a, const Task& b) { return a.rank < b.rank; });
  for (auto task = first; task != last; ++task) {
    rounds_[static_cast<size_t>(task->round)].push_back(tasks_.size());
    tasks_.push_back(*task);
  }
  for (const Move& move : plan.moves) {
    const bool output = move.operand == Operand::output;
    const auto round = static_cast<size_t>(move.round);
    if (move.to == rank) (output ? output_arrivals_ : arrivals_)[round].push_back(&move);
    if (move.from == rank) (output ? output_departures_ : departures_)[round].push_back(&move);
  }
  partial_arrivals_.resize(num_rounds);
  partial_departures_.resize(num_rounds);
  for (const Partial& partial : plan.partials) {
    const auto round = static_cast<size_t>(partial.last_round);
    if (partial.to == rank) partial_arrivals_[round].push_back(&partial);
    if (partial.from == rank) partial_departures_[round].push_back(&partial);
  }
}

RankProgram RankLowering::run() {
  group_outputs();
  lower_forward();
  lower_backward();
  return std::move(program_);
}

Precision RankLowering::accumulation() const {
  return num_bytes(shape_.element) == num_bytes(accumulation_type(shape_.element)) ? Precision::input
                                                                                   : Precision::accumulation;
}

Block RankLowering::home_block(TensorName tensor, DocumentId document, Span rows, HeadRange heads) const {
  const bool kv = tensor == TensorName::key || tensor == TensorName::value || tensor == TensorName::grad_key ||
                  tensor == TensorName::grad_value;
  const int64_t row_stride = int64_t{kv ? shape_.num_kv_heads : shape_.num_heads} * shape_.head_dim;
  const int64_t row = placement_.row_of(rank_, document, rows);
  EVENSPAN_CHECK_GE(row, 0);
  const int64_t offset = (row * row_stride + int64_t{heads.begin} * shape_.head_dim) * num_bytes(shape_.element);
  return Block{tensor, BufferId::home, Precision::input, document, rows, heads, offset, row_stride};
}

Block RankLowering::saved_block(TensorName tensor, Precision precision, DocumentId document, Span rows,
                                HeadRange heads) {
  Buffer& saved = program_.buffer(BufferId::saved);
  Block block{tensor, BufferId::saved, precision,   document,
              rows,   heads,           saved.bytes, heads.size() * width(tensor, shape_)};
  saved.bytes += aligned(payload_bytes(block, shape_));
  return block;
}

std::pair<Block, Block> RankLowering::operand_blocks(const Holdings& holdings, Operand operand, DocumentId document,
                                                     Span rows, HeadRange heads) const {
  const bool query = operand == Operand::query;
  if (at_home(document, rows)) {
    return {home_block(query ? TensorName::query : TensorName::key, document, rows, heads),
            query ? Block{} : home_block(TensorName::value, document, rows, heads)};
  }
  const Holding* holding = holdings.find(operand, document, rows, heads);
  EVENSPAN_CHECK_EQ(holding != nullptr, true);
  return {sub_block(holding->first, rows, heads, shape_),
          query ? Block{} : sub_block(holding->second, rows, heads, shape_)};
}

std::vector<HeadRange> RankLowering::kernel_heads(HeadRange heads) const {
  const int32_t group = shape_.group_size();
  std::vector<HeadRange> ranges;
  const int32_t first_whole = (heads.begin + group - 1) / group * group;
  const int32_t last_whole = heads.end / group * group;
  if (first_whole > last_whole) return {heads};  // inside one kv group
  for (const HeadRange range :
       {HeadRange{heads.begin, first_whole}, HeadRange{first_whole, last_whole}, HeadRange{last_whole, heads.end}}) {
    if (!range.empty()) ranges.push_back(range);
  }
  return ranges;
}

std::vector<RankLowering::OutputGroup> RankLowering::own_groups() const {
  std::map<std::pair<DocumentId, HeadRange>, std::vector<size_t>> by_heads;
  for (size_t t = 0; t < tasks_.size(); ++t) {
    by_heads[{tasks_[t].tile.document, tasks_[t].tile.heads}].push_back(t);
  }
  std::vector<OutputGroup> groups;
  for (auto& [key, tasks] : by_heads) {
    std::stable_sort(tasks.begin(), tasks.end(), [this](size_t a, size_t b) {
      return tasks_[a].tile.queries.begin < tasks_[b].tile.queries.begin;
    });
    for (const size_t t : tasks) {
      const Span rows = tasks_[t].tile.queries;
      const bool same = !groups.empty() && groups.back().document == key.first && groups.back().heads == key.second &&
                        rows.begin < groups.back().rows.end;
      if (!same) groups.push_back(OutputGroup{key.first, key.second, rows, {}, {}, {}, false, 0, false});
      groups.back().rows.end = std::max(groups.back().rows.end, rows.end);
      groups.back().tasks.push_back(t);
      groups.back().last_round = std::max(groups.back().last_round, tasks_[t].round);
    }
  }
  return groups;
}

void RankLowering::group_outputs() {
  std::vector<OutputGroup> leaving, staying = own_groups();
  if (!plan_.partials.empty()) {
    std::set<std::tuple<DocumentId, HeadRange, int64_t>> first_rows;  // of partials that leave
    for (const auto& departures : partial_departures_) {
      for (const Partial* partial : departures)
        first_rows.emplace(partial->document, partial->heads, partial->rows.begin);
    }
    const auto stays = std::stable_partition(staying.begin(), staying.end(), [&](const OutputGroup& group) {
      return first_rows.contains({group.document, group.heads, group.rows.begin});
    });
    leaving.assign(std::make_move_iterator(staying.begin()), std::make_move_iterator(stays));
    staying.erase(staying.begin(), stays);
    for (const auto& arrivals : partial_arrivals_) {
      for (const Partial* partial : arrivals) {
        staying.push_back(
            OutputGroup{partial->document, partial->heads, partial->rows, {}, {}, {}, false, plan_.num_rounds, false});
      }
    }
    const auto key = [](const OutputGroup& group) { return std::tie(group.document, group.heads, group.rows); };
    std::stable_sort(staying.begin(), staying.end(),
                     [&](const OutputGroup& a, const OutputGroup& b) { return key(a) < key(b); });
  }
  for (OutputGroup& group : staying) {
    const bool same = !groups_.empty() && groups_.back().document == group.document &&
                      groups_.back().heads == group.heads && group.rows.begin < groups_.back().rows.end;
    if (!same) groups_.push_back(OutputGroup{group.document, group.heads, group.rows, {}, {}, {}, false, 0, false});
    OutputGroup& joined = groups_.back();
    joined.last_round = std::max(joined.last_round, group.last_round);
    joined.rows.end = std::max(joined.rows.end, group.rows.end);
    joined.tasks.insert(joined.tasks.end(), group.tasks.begin(), group.tasks.end());
  }
  for (OutputGroup& group : groups_) {
    group.at_home = at_home(group.document, group.rows);
    group.output = group.at_home
                       ? home_block(TensorName::output, group.document, group.rows, group.heads)
                       : saved_block(TensorName::output, Precision::input, group.document, group.rows, group.heads);
    group.lse = saved_block(TensorName::lse, Precision::accumulation, group.document, group.rows, group.heads);
  }
  num_staying_ = groups_.size();
  for (OutputGroup& group : leaving) {
    group.leaves = true;
    groups_.push_back(std::move(group));
  }
  group_of_task_.resize(tasks_.size());
  for (size_t g = 0; g < groups_.size(); ++g) {
    std::sort(groups_[g].tasks.begin(), groups_[g].tasks.end());
    for (const size_t t : groups_[g].tasks) group_of_task_[t] = g;
  }
}

size_t RankLowering::group_of(const Partial& partial, bool leaves) const {
  return group_of(partial.document, partial.heads, partial.rows, leaves);
}

size_t RankLowering::group_of(const Move& output) const {
  return group_of(output.document, output.heads, output.rows, false);
}

size_t RankLowering::group_of(DocumentId document, HeadRange heads, Span rows, bool leaves) const {
  const auto middle = groups_.begin() + static_cast<std::ptrdiff_t>(num_staying_);
  const auto [first, last] = leaves ? std::pair(middle, groups_.end()) : std::pair(groups_.begin(), middle);
  auto group = std::upper_bound(
      first, last, std::tie(document, heads, rows.begin),
      [](const auto& key, const OutputGroup& g) { return key < std::tie(g.document, g.heads, g.rows.begin); });
  EVENSPAN_CHECK_EQ(group != first, true);
  --group;
  EVENSPAN_CHECK_EQ(group->document == document && group->heads == heads && group->rows.contains(rows), true);
  return static_cast<size_t>(group - groups_.begin());
}

void RankLowering::append_operand_rows(const Task& task, OperandRows* rows) const {
  const Tile& tile = task.tile;
  if (!at_home(tile.document, tile.queries)) {
    (*rows)[{Operand::query, tile.document, tile.heads}].push_back(tile.queries);
  }
  if (!at_home(tile.document, tile.keys)) {
    (*rows)[{Operand::key_value, tile.document, kv_heads(tile)}].push_back(tile.keys);
  }
}

std::vector<BlockPair> RankLowering::open_holdings(const OperandRows& rows, Join join,
                                                   const std::vector<const Move*>& arrivals, bool keep,
                                                   Emitter* emitter, ExchangeBuilder* builder, Holdings* holdings) {
  OperandRows arriving_rows;
  for (const Move* move : arrivals) arriving_rows[{move->operand, move->document, move->heads}].push_back(move->rows);
  std::vector<BlockPair> copies;
  std::vector<Holding> opened;
  for (const auto& [key, key_rows] : rows) {
    const auto& [operand, document, heads] = key;
    const bool query = operand == Operand::query;
    const std::vector<Span> arriving = union_of(arriving_rows[key]);
    for (const Span& whole : union_of(key_rows, join)) {
      const auto new_block = [&](TensorName tensor) {
        return keep ? saved_block(tensor, Precision::input, document, whole, heads)
                    : emitter->arena_block(tensor, Precision::input, document, whole, heads);
      };
      Holding holding{operand, document, whole, heads, {}, {}, {}};
      holding.first = new_block(query ? TensorName::query : TensorName::key);
      if (!query) holding.second = new_block(TensorName::value);
      // The rest is at home, or came in an earlier round.
      std::vector<Span> rest = subtract(whole, arriving);
      const auto fill = [&](const Span& present) {
        std::vector<Span> left;
        for (const Span& rows : rest) {
          const Span part = rows.intersect(present);
          if (part.empty()) {
            left.push_back(rows);
            continue;
          }
          const auto from = operand_blocks(*holdings, operand, document, part, heads);
          copies.push_back(BlockPair{sub_block(holding.first, part, heads, shape_), from.first});
          if (!query) copies.push_back(BlockPair{sub_block(holding.second, part, heads, shape_), from.second});
          if (at_home(document, part)) holding.filled.push_back(part);
          for_each_uncovered(rows, std::span(&part, 1), [&left](const Span& remaining) { left.push_back(remaining); });
        }
        rest = std::move(left);
      };
      for (const Span& span : placement_.spans_of(rank_, document)) fill(span);
      const auto earlier = holdings->all().find({operand, document});
      for (size_t i = 0; !rest.empty() && earlier != holdings->all().end() && i < earlier->second.size(); ++i) {
        if (earlier->second[i].heads.contains(heads)) fill(earlier->second[i].rows);
      }
      EVENSPAN_CHECK_EQ(rest.size(), 0U);
      opened.push_back(std::move(holding));
    }
  }
  for (Holding& holding : opened) holdings->add(std::move(holding));
  for (const Move* move : arrivals) {
    const Holding* holding = holdings->find(move->operand, move->document, move->rows, move->heads);
    EVENSPAN_CHECK_EQ(holding != nullptr, true);
    builder->receive(move->from, sub_block(holding->first, move->rows, move->heads, shape_), Precision::input, false);
    if (move->operand == Operand::key_value) {
      builder->receive(move->from, sub_block(holding->second, move->rows, move->heads, shape_), Precision::input,
                       false);
    }
  }
  return copies;
}

Segment RankLowering::segment(const Holdings& holdings, const Tile& tile, HeadRange heads) const {
  Segment segment;
  segment.kind = tile.kind;
  const bool windowed = tile.kind == TileKind::window || tile.kind == TileKind::band;
  segment.window = windowed ? plan_.request.documents[tile.document].mask.extent : 0;
  segment.query = operand_blocks(holdings, Operand::query, tile.document, tile.queries, heads).first;
  std::tie(segment.key, segment.value) =
      operand_blocks(holdings, Operand::key_value, tile.document, tile.keys, shape_.kv_heads(heads));
  return segment;
}

RankProgram lower(const Plan& plan, Rank rank) { return RankLowering(plan, rank).run(); }

LoweredPlan lower_all(const Plan& plan) {
  LoweredPlan lowered{plan.request, plan.placement, {}};
  for (int32_t r = 0; r < plan.request.num_ranks(); ++r) lowered.programs.push_back(lower(plan, Rank(r)));
  return lowered;
}

}  // namespace evenspan::plan
