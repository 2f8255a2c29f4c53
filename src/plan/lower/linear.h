// Lowering of one rank's program of a linear layer.
#pragma once

#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <tuple>
#include <vector>

#include "evenspan/plan/linear.h"
#include "plan/lower/emitter.h"
#include "plan/transport/transport.h"

namespace evenspan::plan {

class LinearLowering {
 public:
  LinearLowering(const Plan& plan, const AttentionShape& shape, const StateOptions& options, Rank rank);
  RankProgram run();

 private:
  struct OwnPart {
    Part part;
    int32_t index = 0, count = 1;           // among the parts of its document
    std::optional<Block> saved_state;       // before it, where one comes in
    std::optional<Block> saved_transition;  // of it, where something comes in and goes out
  };
  // The map or state of a range of parts, all heads, on this rank; and when it comes.
  struct Held {
    Block block;
    std::optional<Block> transition;
    std::vector<std::pair<HeadRange, size_t>> arrivals;  // heads, index in pending_
  };
  // A document of which this rank holds a part, in one direction.
  struct Local {
    DocumentId document;
    std::vector<Span> spans;  // [part], in the order of the document
    std::vector<size_t> own;  // indices in parts_, in the order of the pass
    Scan scan;                // empty for a document of one part
    size_t next_move = 0, next_fold = 0;
    std::map<PartRange, Held> held;
    std::deque<Held> unused;  // arrivals of what was folded here
  };

  bool has_incoming(int32_t index) const { return index > 0 || shape_.state.initial; }
  bool has_outgoing(int32_t index, int32_t num_parts) const { return index + 1 < num_parts || shape_.state.final; }
  Phase lower(bool backward);
  Phase recompute();

  // Of one direction. Indices of parts are in the order of the pass.
  bool comes_in(int32_t index) const { return index > 0 || given_; }
  bool goes_out(int32_t index, int32_t count) const { return index + 1 < count || asked_; }
  int32_t mirrored(int32_t index, int32_t count) const { return backward_ ? count - 1 - index : index; }
  Span rows_of(const Local& local, PartRange range) const;
  Block state_block(TensorName tensor, BufferId buffer, DocumentId document, Span rows);
  Block state_before(const OwnPart& own) const;
  std::optional<Block> started_from(const OwnPart& own) const;
  std::optional<Block> transition_block(DocumentId document, Span rows);
  Block home_state(TensorName tensor, DocumentId document, Span rows) const;
  Held& open(Local* local, PartRange range);
  Held& target(Local* local, PartRange range);
  Local make_local(DocumentId document, std::vector<size_t> own);
  void summarize();
  void fold(Local* local, PartRange to, PartRange far, PartRange near, HeadRange heads);
  void need(const Held& held, HeadRange heads);
  void run_round(int32_t round);
  void emit_compositions();
  void emit_intra();
  void finish();

  const Plan& plan_;
  const AttentionShape& shape_;
  const StateOptions& options_;
  Rank rank_;
  std::vector<OwnPart> parts_;  // in home order
  RankProgram program_{standard_buffers(), {}};

  bool backward_ = false, given_ = false, asked_ = false;
  TensorName state_ = TensorName::state, summary_ = TensorName::summary, result_ = TensorName::final_state;
  std::unique_ptr<Emitter> emitter_;
  std::vector<Local> locals_;
  std::vector<Completion> pending_;        // what remains to be done of the exchanges
  std::vector<char> completed_;            // [pending] whether it is done
  std::vector<Composition> compositions_;  // that wait for the next operation that needs them
  bool intra_emitted_ = false;
};

}  // namespace evenspan::plan
