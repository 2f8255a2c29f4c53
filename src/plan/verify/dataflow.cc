// Proofs 2 and 4: all ranks run symbolically. Memory holds names and sets of contributions instead of numbers; what is
// sent arrives where the receiving rank waits for it.
#include <algorithm>
#include <unordered_map>

#include "plan/verify/memory_map.h"
#include "plan/visit.h"

namespace evenspan::plan::proofs {
namespace {

// What a message carries: the pieces of each of its blocks.
using Parcel = std::vector<std::vector<Content>>;

class DataflowProver {
 public:
  explicit DataflowProver(const LoweredPlan& plan)
      : plan_(plan), sizes_(plan.request.shape), finished_(plan), num_ranks_(plan.programs.size()) {
    for (const RankProgram& program : plan.programs) machines_.emplace_back(sizes_, program.buffers);
  }

  void prove() {
    for (const PhaseKind phase : phases_of(plan_.request.shape)) {
      run(phase);
      prove_results();
      for (Machine& machine : machines_) machine.memory.end_phase();
    }
  }

 private:
  struct Arrival {  // a message to come
    size_t from;
    size_t index;  // among all messages of that rank to this one
    const Message* message;
  };
  struct Machine {  // a rank
    Machine(const Sizes& sizes, const std::vector<Buffer>& buffers) : memory(sizes, buffers) {}
    MemoryMap memory;
    size_t operation = 0;
    size_t segment = 0;                                         // number of the next segment in segments_of()
    std::unordered_map<Event, std::vector<Arrival>> exchanges;  // in flight, by event
    std::unordered_map<size_t, size_t> num_received;            // messages posted, by sender
  };

  void run(PhaseKind phase) {
    phase_ = phase;
    parcels_.assign(num_ranks_ * num_ranks_, {});
    size_t segment = 0;
    for (size_t rank = 0; rank < num_ranks_; ++rank) {
      Machine& machine = machines_[rank];
      machine.operation = 0;
      machine.segment = segment;
      machine.exchanges.clear();
      machine.num_received.clear();
      for (const Operation& operation : operations_of(rank)) {
        if (const auto* attend = std::get_if<Attend>(&operation.body)) segment += attend->items.size();
        if (const auto* attend = std::get_if<AttendGradient>(&operation.body)) segment += attend->items.size();
      }
    }
    // Matching is proven without a deadlock, so every round gets further.
    for (bool all_done = false; !all_done;) {
      all_done = true;
      bool any_progress = false;
      for (size_t rank = 0; rank < num_ranks_; ++rank) {
        const size_t before = machines_[rank].operation;
        all_done = advance(rank) && all_done;
        any_progress = any_progress || machines_[rank].operation > before;
      }
      if (!all_done) EVENSPAN_CHECK_EQ(any_progress, true);
    }
  }

  const std::vector<Operation>& operations_of(size_t rank) const {
    return phase_of(plan_, static_cast<int32_t>(rank), phase_).operations;
  }
  std::vector<Parcel>& parcels(size_t from, size_t to) { return parcels_[from * num_ranks_ + to]; }

  // Runs the rank until it needs a message that nobody has sent yet; returns whether it came to its end.
  bool advance(size_t rank) {
    Machine& machine = machines_[rank];
    const auto& operations = operations_of(rank);
    for (; machine.operation < operations.size(); ++machine.operation) {
      site_ = Site{static_cast<int32_t>(rank), static_cast<int32_t>(machine.operation), phase_};
      const Operation& operation = operations[machine.operation];
      for (const Event event : operation.waits) {
        if (!complete(rank, event)) return false;
      }
      if (const auto* exchange = std::get_if<Exchange>(&operation.body)) {
        start(rank, *exchange, operation.signals);
      } else {
        std::visit([&](const auto& body) { step(rank, body); }, operation.body);
      }
    }
    site_ = Site{static_cast<int32_t>(rank), -1, phase_};
    while (!machine.exchanges.empty()) {
      if (!complete(rank, machine.exchanges.begin()->first)) return false;
    }
    return true;
  }

  // Takes in what an exchange brings, unless some of it is not sent yet.
  bool complete(size_t rank, Event event) {
    Machine& machine = machines_[rank];
    const auto found = machine.exchanges.find(event);
    if (found == machine.exchanges.end()) return true;  // waited for before
    for (const Arrival& arrival : found->second) {
      if (parcels(arrival.from, rank).size() <= arrival.index) return false;
    }
    for (const Arrival& arrival : found->second) {
      Parcel parcel = std::move(parcels(arrival.from, rank)[arrival.index]);
      for (size_t b = 0; b < parcel.size(); ++b) {
        machine.memory.arrive(arrival.message->blocks[b], event, parcel[b], site_);
      }
    }
    machine.memory.complete(event);
    machine.exchanges.erase(found);
    return true;
  }

  void start(size_t rank, const Exchange& exchange, Event event) {
    Machine& machine = machines_[rank];
    auto& arrivals = machine.exchanges[event];
    for (const Message& message : exchange.items) {
      const auto peer = static_cast<size_t>(message.peer.value);
      if (message.direction == Direction::send) {
        Parcel& parcel = parcels(rank, peer).emplace_back();
        for (const Block& block : message.blocks) {
          parcel.push_back(machine.memory.read(block, site_));
          machine.memory.send(block, event);
        }
      } else {
        arrivals.push_back(Arrival{peer, machine.num_received[peer]++, &message});
        for (const Block& block : message.blocks) machine.memory.expect(block, event, site_);
      }
    }
  }

  // Of operations that hold no partials: each item makes what it writes of what it reads, and all that the operation
  // writes stays. Contents of states are told apart by what they are of: well-formed compositions make nothing but
  // what they name.
  template <class Body>
  void step(size_t rank, const Body& body) {
    MemoryMap& memory = machines_[rank].memory;
    const AttentionShape& shape = plan_.request.shape;
    std::vector<std::pair<Block, Access>> uses;
    for (const auto& item : body.items) {
      uses.clear();
      for_each_block_of<Body>(item, shape,
                              [&](const Block& block, Access access) { uses.emplace_back(block, access); });
      for (const auto& [block, access] : uses) {
        if (access != Access::write) memory.require(block, site_);
      }
      for (const auto& [block, access] : uses) {
        if (access == Access::read) continue;
        for (const auto& [other, of_other] : uses) {
          if (&other != &block) check_apart({block, other});
        }
        write_whole(rank, block, {});
      }
    }
    for (const auto& item : body.items) {
      for_each_block_of<Body>(item, shape, [&](const Block& block, Access access) {
        if (access != Access::read) memory.require(block, site_);
      });
    }
  }

  // All segments of an operation are one call: none may write what another reads. So operands are checked when all has
  // been written; an operation cannot write operands of its own.
  void step(size_t rank, const Attend& attend) {
    MemoryMap& memory = machines_[rank].memory;
    for (const ForwardSegment& segment : attend.items) {
      const Contributions own = contribution(machines_[rank].segment++);
      if (!segment.fold) {
        write_whole(rank, segment.output, own);
        write_whole(rank, segment.lse, own);
        continue;
      }
      const std::vector<Content> output = memory.read(segment.output, site_);
      const std::vector<Content> lse = memory.read(segment.lse, site_);
      check_same(segment.output, output, segment.lse, lse);
      write(rank, segment.output, output, own);
      write(rank, segment.lse, lse, own);
    }
    for (const ForwardSegment& segment : attend.items) {
      read_operands(rank, segment);
      memory.require(segment.output, site_);  // the log-sum-exp may have been written over it
    }
  }

  void step(size_t rank, const AttendGradient& attend) {
    MemoryMap& memory = machines_[rank].memory;
    for (const BackwardSegment& segment : attend.items) {
      const Contributions own = contribution(machines_[rank].segment++);
      for (const GradientTarget* target : {&segment.grad_query, &segment.grad_key, &segment.grad_value}) {
        if (target->add) {
          write(rank, target->block, memory.read(target->block, site_), own);
        } else {
          write_whole(rank, target->block, own);
        }
      }
      for (const GradientTarget* target : {&segment.grad_query, &segment.grad_key})
        memory.require(target->block, site_);
    }
    for (const BackwardSegment& segment : attend.items) {
      read_operands(rank, segment);
      memory.require(segment.grad_output, site_);
      for (const Block* block : {&segment.output, &segment.lse}) {
        require_finished(*block, memory.read(*block, site_));
      }
    }
  }

  void step(size_t rank, const Copy& copy) {
    for (const BlockPair& pair : copy.items) {
      check_apart(pair);
      write(rank, pair.to, machines_[rank].memory.read(pair.from, site_), {});
    }
  }

  void step(size_t rank, const Accumulate& accumulate) {
    MemoryMap& memory = machines_[rank].memory;
    for (const BlockPair& pair : accumulate.items) {
      check_apart(pair);
      const std::vector<Content> from = memory.read(pair.from, site_);
      write(rank, pair.to, sums_of(memory.read(pair.to, site_), from), {});
    }
  }

  void step(size_t rank, const Merge& merge) {
    MemoryMap& memory = machines_[rank].memory;
    for (const auto& [output, lse, from_output, from_lse] : merge.items) {
      for (const Block* to : {&output, &lse}) {
        for (const Block* from : {&from_output, &from_lse}) check_apart({*to, *from});
      }
      const std::vector<Content> from = memory.read(from_output, site_), to = memory.read(output, site_);
      check_same(from_output, from, from_lse, memory.read(from_lse, site_));
      check_same(output, to, lse, memory.read(lse, site_));
      for (const Content& part : from) {
        if (part.set.count > 0) continue;
        refute(Proof::dataflow, site_, "merges ", describe(from_output), ", which holds no segment in rows ",
               describe(part.rows));
      }
      const std::vector<Content> sums = sums_of(to, from);
      write(rank, output, sums, {});
      write(rank, lse, sums, {});
      memory.require(output, site_);  // the log-sum-exp may have been written over it
    }
  }

  void step(size_t rank, const Delta& delta) {
    MemoryMap& memory = machines_[rank].memory;
    for (const DeltaRows& rows : delta.items) {
      check_apart({rows.delta, rows.output});
      check_apart({rows.delta, rows.grad_output});
      const std::vector<Content> output = memory.read(rows.output, site_);
      memory.require(rows.grad_output, site_);
      require_finished(rows.output, output);
      write(rank, rows.delta, output, {});
    }
  }

  void read_operands(size_t rank, const Segment& segment) {
    for (const Block* block : {&segment.query, &segment.key, &segment.value}) {
      machines_[rank].memory.require(*block, site_);
    }
  }

  void require_finished(const Block& block, const std::vector<Content>& pieces) const {
    for (const Content& piece : pieces) {
      FinishedSets::Difference difference;
      if (is_finished(block, piece, &difference)) continue;
      refute(Proof::result, site_, "backward reads ", describe(block),
             ", which is not final: ", compare(piece, difference));
    }
  }

  // What two partials of the same rows and heads hold together.
  static std::vector<Content> sums_of(const std::vector<Content>& to, const std::vector<Content>& from) {
    std::vector<Content> sums;
    for (const Content& a : to) {
      for (const Content& b : from) {
        const Content sum{a.rows.intersect(b.rows), a.heads.intersect(b.heads), a.set + b.set};
        if (!sum.rows.empty() && !sum.heads.empty()) sums.push_back(sum);
      }
    }
    return sums;
  }

  void write_whole(size_t rank, const Block& block, const Contributions& set) {
    write(rank, block, {Content{block.rows, block.heads, {}}}, set);
  }

  // Writes the pieces with `more` added to each.
  void write(size_t rank, const Block& block, std::vector<Content> pieces, const Contributions& more) {
    for (Content& piece : pieces) {
      piece.set += more;
      check_rounding(block, piece);
    }
    machines_[rank].memory.write(block, pieces, site_);
  }

  // The input type holds nothing that goes on growing: only what is finished, or empty, or the gradient that one
  // segment computed (which had that type when the kernel returned it).
  void check_rounding(const Block& block, const Content& piece) const {
    if (block.precision != Precision::input || !sizes_.input_rounds() || !is_partial(block.tensor)) return;
    if (piece.set.count <= (is_gradient(block.tensor) ? 1 : 0)) return;
    FinishedSets::Difference difference;
    if (is_finished(block, piece, &difference)) return;
    refute(Proof::dataflow, site_, "rounds ", describe(block),
           " to the input type, but it is unfinished: ", compare(piece, difference));
  }

  // A partial output and its log-sum-exp are of the same segments, or folding them means nothing.
  void check_same(const Block& output, const std::vector<Content>& outputs, const Block& lse,
                  const std::vector<Content>& lses) const {
    for (const Content& a : outputs) {
      for (const Content& b : lses) {
        if (!a.rows.overlaps(b.rows) || !a.heads.overlaps(b.heads) || a.set == b.set) continue;
        refute(Proof::dataflow, site_, "folds ", describe(output), " of ", a.set.count, " segments and ", describe(lse),
               " of ", b.set.count, " or of others, in rows ", describe(a.rows.intersect(b.rows)));
      }
    }
  }

  void check_apart(const BlockPair& pair) const {
    const auto& [to, from] = pair;
    const bool same_space = to.buffer == from.buffer && (to.buffer != BufferId::home || to.tensor == from.tensor);
    if (same_space && overlap(sizes_.area(to), sizes_.area(from)).count > 0) {
      refute(Proof::dataflow, site_, "reads ", describe(from), " while writing over it ", describe(to));
    }
  }

  bool is_finished(const Block& block, const Content& piece, FinishedSets::Difference* difference) const {
    return finished_.of(block.tensor).is_finished(block.document, piece.rows, piece.heads, piece.set, difference);
  }

  static std::string compare(const Content& piece, const FinishedSets::Difference& difference) {
    const auto& [rows, heads, finished] = difference;
    const char* reason = piece.set.count < finished.count   ? "; some are missing"
                         : piece.set.count > finished.count ? "; some came more than once"
                                                            : ", but not of the same ones";
    return join_text("rows ", describe(rows), ", heads ", describe(heads), " hold ", piece.set.count,
                     " contributions where ", finished.count, " segments contribute", reason);
  }

  // What the phase is for is there.
  void prove_results() {
    const bool backward = phase_ == PhaseKind::backward;
    const AttentionShape& shape = plan_.request.shape;
    for (size_t rank = 0; rank < num_ranks_; ++rank) {
      site_ = Site{static_cast<int32_t>(rank), -1, phase_};
      if (shape.is_linear()) {
        if (backward ? shape.state.initial : shape.state.final) prove_states(rank, backward);
      } else if (backward) {
        for (const TensorName tensor : {TensorName::grad_query, TensorName::grad_key, TensorName::grad_value}) {
          prove_result(rank, tensor);
        }
      } else {
        prove_result(rank, TensorName::output);
      }
    }
  }

  // The final states on the ranks where documents end, or the gradients of initial ones where they begin.
  void prove_states(size_t rank, bool backward) {
    const TensorName tensor = backward ? TensorName::grad_initial_state : TensorName::final_state;
    for (const PlacedSpan& placed : plan_.placement.spans(Rank(static_cast<int64_t>(rank)))) {
      const int64_t length = plan_.request.documents[placed.document].length;
      if (backward ? placed.span.begin > 0 : placed.span.end < length) continue;
      const HeadRange heads{0, plan_.request.shape.num_heads};
      const int64_t row_stride = heads.size() * sizes_.width(tensor);
      const Block block{tensor,
                        BufferId::home,
                        Precision::accumulation,
                        placed.document,
                        {0, length},
                        heads,
                        placed.document * row_stride * sizes_.element_bytes(Precision::accumulation),
                        row_stride};
      machines_[rank].memory.read(block, site_, Proof::result);
    }
  }

  void prove_result(size_t rank, TensorName tensor) {
    const HeadRange heads{0, sizes_.num_heads(tensor)};
    const int64_t row_stride = heads.size() * sizes_.width(tensor);
    int64_t row = 0;
    for (const PlacedSpan& placed : plan_.placement.spans(Rank(static_cast<int64_t>(rank)))) {
      const int64_t offset = row * row_stride * sizes_.element_bytes(Precision::input);
      const Block block{tensor,      BufferId::home, Precision::input, placed.document,
                        placed.span, heads,          offset,           row_stride};
      row += placed.span.size();
      for (const Content& piece : machines_[rank].memory.read(block, site_, Proof::result)) {
        FinishedSets::Difference difference;
        if (is_finished(block, piece, &difference)) continue;
        refute(Proof::result, site_, describe(block), " is not complete: ", compare(piece, difference));
      }
    }
  }

  const LoweredPlan& plan_;
  Sizes sizes_;
  Finished finished_;
  size_t num_ranks_;
  PhaseKind phase_ = PhaseKind::forward;
  std::vector<Machine> machines_;             // [rank]
  std::vector<std::vector<Parcel>> parcels_;  // [from * ranks + to][message]
  Site site_;                                 // where the run is
};

}  // namespace

void prove_dataflow_and_result(const LoweredPlan& plan) { DataflowProver(plan).prove(); }

}  // namespace evenspan::plan::proofs
