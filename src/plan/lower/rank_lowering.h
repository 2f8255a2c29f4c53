// Lowering of one rank's program from a plan.
#pragma once

#include <map>
#include <tuple>
#include <vector>

#include "evenspan/plan/program.h"
#include "plan/lower/emitter.h"

namespace evenspan::plan {

// Received or assembled operand rows that tiles read.
struct Holding {
  Operand operand;
  DocumentId document;
  Span rows;
  HeadRange heads;
  Block first, second;       // query; or key and value
  std::vector<Span> filled;  // rows that were copied from home instead of received, sorted
};

class Holdings {
 public:
  void add(Holding holding) { by_document_[{holding.operand, holding.document}].push_back(std::move(holding)); }
  // The holding that contains rows and heads; null if none does.
  const Holding* find(Operand operand, DocumentId document, Span rows, HeadRange heads) const;
  const auto& all() const { return by_document_; }

 private:
  std::map<std::pair<Operand, DocumentId>, std::vector<Holding>> by_document_;
};

// How several contributions make up one block: which of them overwrite, which add, and whether it is cleared first.
struct Combination {
  bool clear = false;
  bool overlap = false;
  std::vector<char> adds;  // [contribution], in program order
};
struct Contribution {
  Span rows;
  HeadRange heads;
};
Combination combine(Span rows, HeadRange heads, const std::vector<Contribution>& contributions);

class RankLowering {
 public:
  RankLowering(const Plan& plan, Rank rank);
  RankProgram run();

 private:
  // Tasks of one (document, heads) that overlap in rows, and partials of other ranks that overlap with them: they make
  // one output, and one gradient of queries.
  struct OutputGroup {
    DocumentId document;
    HeadRange heads;
    Span rows;
    std::vector<size_t> tasks;  // in forward order
    Block output;               // final: home, or saved when the rows live elsewhere; in the arena when it leaves
    Block lse;                  // saved; in the arena when it leaves
    bool at_home = false;
    int32_t last_round = 0;  // of its tasks; num_rounds where partials of other ranks fold into it
    bool leaves = false;     // a partial result, for the homes of its rows to finish
  };
  // Common to both directions (rank_lowering.cc).
  void group_outputs();
  std::vector<OutputGroup> own_groups() const;  // of tasks alone
  // The group, as a number, that holds the rows. REQUIRES: this rank has finished, or computes, these rows.
  size_t group_of(const Move& output) const;
  // The group that a partial comes from, on its sender, or is folded into, at home.
  size_t group_of(const Partial& partial, bool leaves) const;
  size_t group_of(DocumentId document, HeadRange heads, Span rows, bool leaves) const;
  Block home_block(TensorName tensor, DocumentId document, Span rows, HeadRange heads) const;
  bool at_home(DocumentId document, Span rows) const { return placement_.row_of(rank_, document, rows) >= 0; }
  Block saved_block(TensorName tensor, Precision precision, DocumentId document, Span rows, HeadRange heads);
  HeadRange kv_heads(const Tile& tile) const { return shape_.kv_heads(tile.heads); }
  // The operand's blocks of a tile: at home or in a holding.
  std::pair<Block, Block> operand_blocks(const Holdings& holdings, Operand operand, DocumentId document, Span rows,
                                         HeadRange heads) const;
  // Rows of operands that are not at home, by what they are of.
  using OperandRows = std::map<std::tuple<Operand, DocumentId, HeadRange>, std::vector<Span>>;
  void append_operand_rows(const Task& task, OperandRows* rows) const;
  // Makes holdings of `rows`, joined, and receives the arrivals into them through `builder`. Returns the copies from
  // home of the rows that do not arrive. REQUIRES: a row that neither arrives nor is at home is in no new holding.
  std::vector<BlockPair> open_holdings(const OperandRows& rows, Join join, const std::vector<const Move*>& arrivals,
                                       bool keep, Emitter* emitter, ExchangeBuilder* builder, Holdings* holdings);
  Segment segment(const Holdings& holdings, const Tile& tile, HeadRange heads) const;
  // Ranges of the tile's heads that a kernel takes in one call: inside a kv group, or whole groups.
  std::vector<HeadRange> kernel_heads(HeadRange heads) const;
  Precision accumulation() const;  // `input` where both have the same bytes

  void lower_forward();   // forward.cc
  void lower_backward();  // backward.cc
  friend class OutputSums;
  friend class PartialGradients;
  friend class BackwardLowering;

  const Plan& plan_;
  const AttentionShape& shape_;
  const Placement& placement_;
  Rank rank_;
  std::vector<Task> tasks_;                                                         // of this rank, by round
  std::vector<std::vector<size_t>> rounds_;                                         // [round] tasks
  std::vector<std::vector<const Move*>> arrivals_, departures_;                     // [round], operands, forward
  std::vector<std::vector<const Move*>> output_arrivals_, output_departures_;       // [round]
  std::vector<std::vector<const Partial*>> partial_arrivals_, partial_departures_;  // [last round]; both: own ones
  std::vector<OutputGroup> groups_;                                                 // those that leave apart
  size_t num_staying_ = 0;
  std::vector<size_t> group_of_task_;
  Holdings forward_holdings_;
  RankProgram program_{standard_buffers(), {}};
};

}  // namespace evenspan::plan
