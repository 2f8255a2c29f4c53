// Linear layers: on random placements every transport's programs are proven, send what the formula says in as many
// steps, and survive the text form; damaged ones are refused.
#include "evenspan/plan/linear.h"

#include <deque>
#include <map>

#include "evenspan/core/error.h"
#include "evenspan/plan/text.h"
#include "evenspan/plan/verify.h"
#include "gtest/gtest.h"
#include "plan/mutation_kinds.h"

namespace evenspan {
namespace {

using namespace plan;  // NOLINT
using test::Dice;

struct Case {
  Plan plan;
  AttentionShape shape;
  StateOptions options;
};

// Up to eight ranks; documents of up to 40 tokens, cut anywhere, a rank may hold several spans of one.
Case random_case(Dice* dice) {
  Case c;
  Request& request = c.plan.request;
  const auto number = [&](size_t low, size_t high) { return low + dice->below(high - low + 1); };
  std::vector<int64_t> lengths(number(1, 4));
  for (int64_t& length : lengths) length = static_cast<int64_t>(dice->coin() ? number(1, 3) : number(1, 40));
  request.documents = Documents(lengths, Mask{});
  const auto num_ranks = static_cast<int32_t>(number(1, 8));
  request.topology = make_topology(num_ranks, static_cast<int32_t>(number(1, static_cast<size_t>(num_ranks))));
  std::vector<std::vector<PlacedSpan>> spans(static_cast<size_t>(num_ranks));
  for (int64_t d = 0; d < request.documents.size(); ++d) {
    const int64_t length = lengths[static_cast<size_t>(d)];
    for (int64_t at = 0; at < length;) {
      const auto size = static_cast<int64_t>(number(1, static_cast<size_t>(dice->coin() ? length : 4)));
      dice->one_of(spans).push_back({DocumentId(d), {at, std::min(at + size, length)}});
      at += size;
    }
  }
  c.plan.placement = Placement(request.documents, std::move(spans));
  const auto heads = static_cast<int32_t>(number(1, 5));
  c.shape = {heads, heads, 4, dice->coin() ? ElementType::bf16 : ElementType::f64, {}};
  c.shape.state = {static_cast<int32_t>(number(1, 2)) * 3000, static_cast<Gate>(dice->below(4)), dice->below(3) == 0,
                   dice->coin(), dice->coin()};
  if (dice->coin()) c.shape.state.value_dim = 5;  // small blocks share a message
  c.options.transport = std::string(transports()[dice->below(transports().size())].name);
  c.options.blocks = static_cast<int32_t>(number(0, static_cast<size_t>(heads)));
  return c;
}

std::string describe(const Case& c) {
  std::string text = c.options.transport + " in " + std::to_string(c.options.blocks) + " blocks, " +
                     std::string(to_string(c.shape.state.transition())) + ", initial " +
                     std::to_string(c.shape.state.initial) + ", final " + std::to_string(c.shape.state.final) +
                     ", ranks a node " + std::to_string(c.plan.request.topology.ranks_per_node()) + "\n";
  return text + print(lower_linear_all(c.plan, c.shape, c.options));
}

int64_t sent(const LoweredPlan& plan, bool backward) {
  int64_t bytes = 0;
  for (const RankProgram& program : plan.programs) {
    bytes += sent_bytes(program.phase(backward ? PhaseKind::backward : PhaseKind::forward), plan.request.shape);
  }
  return bytes;
}

// The steps of messages that follow each other, each sent when all that its rank has waited for is there.
int32_t steps_of(const LoweredPlan& plan, bool backward) {
  struct Runner {
    size_t operation = 0;
    int32_t now = 0;
    std::map<int32_t, std::vector<int32_t>> receives;  // by exchange: senders
  };
  std::vector<Runner> runners(plan.programs.size());
  std::map<std::pair<int32_t, int32_t>, std::deque<int32_t>> arrivals;  // (from, to): steps
  int32_t steps = 0;
  for (bool moved = true; moved;) {
    moved = false;
    for (size_t r = 0; r < runners.size(); ++r) {
      Runner& runner = runners[r];
      const auto rank = static_cast<int32_t>(r);
      const auto& operations = plan.programs[r].phase(backward ? PhaseKind::backward : PhaseKind::forward).operations;
      for (; runner.operation < operations.size(); ++runner.operation, moved = true) {
        const Operation& operation = operations[runner.operation];
        bool there = true;
        for (const int32_t id : operation.waits) {
          std::map<int32_t, size_t> needed;
          for (const int32_t from : runner.receives[id]) ++needed[from];
          for (const auto& [from, count] : needed) there = there && arrivals[{from, rank}].size() >= count;
        }
        if (!there) break;
        for (const int32_t id : operation.waits) {
          for (const int32_t from : runner.receives[id]) {
            runner.now = std::max(runner.now, arrivals[{from, rank}].front());
            arrivals[{from, rank}].pop_front();
          }
          runner.receives[id].clear();
        }
        const auto* exchange = std::get_if<Exchange>(&operation.body);
        if (exchange == nullptr) continue;
        for (const Message& message : exchange->items) {
          if (message.direction == Direction::receive) {
            runner.receives[operation.signals].push_back(message.peer);
            continue;
          }
          arrivals[{rank, message.peer}].push_back(runner.now + 1);
          steps = std::max(steps, runner.now + 1);
        }
      }
    }
  }
  return steps;
}

TEST(Linear, RandomPlansAreProvenAndSendWhatTheFormulaSays) {
  Dice dice(6);
  for (int i = 0; i < 4000; ++i) {
    const Case c = random_case(&dice);
    const LoweredPlan plan = lower_linear_all(c.plan, c.shape, c.options);
    const std::vector<Finding> findings = verify(plan);
    ASSERT_TRUE(findings.empty()) << to_string(findings.front()) << "\n" << describe(c);
    ASSERT_EQ(sent(plan, false), forward_traffic(c.plan, c.shape, c.options).bytes(c.shape)) << describe(c);
    ASSERT_EQ(sent(plan, true), backward_traffic(c.plan, c.shape, c.options).bytes(c.shape)) << describe(c);
    const LoweredPlan read = parse(print(plan));
    ASSERT_EQ(print(read), print(plan));
    ASSERT_EQ(read.programs, plan.programs);
  }
}

// One document, a part a rank: the bytes and steps of the table in docs/algorithms.md.
Case one_document(int32_t num_ranks, int32_t ranks_per_node, const std::string& transport,
                  int64_t tokens_per_rank = 1) {
  Case c;
  c.plan.request.documents = Documents({num_ranks * tokens_per_rank}, Mask{});
  c.plan.request.topology = make_topology(num_ranks, ranks_per_node);
  std::vector<std::vector<PlacedSpan>> spans;
  for (int32_t r = 0; r < num_ranks; ++r) {
    spans.push_back({{DocumentId(0), {r * tokens_per_rank, (r + 1) * tokens_per_rank}}});
  }
  c.plan.placement = Placement(c.plan.request.documents, std::move(spans));
  c.shape = {4, 4, 64, ElementType::bf16, {64, Gate::channel, false, false, false}};
  c.options = {transport, 4};
  return c;
}

TEST(Linear, BytesAndStepsOfOneDocument) {
  const int64_t state = 4 * 64 * 64 * 4, transition = 4 * 64 * 4;
  struct Row {
    const char* transport;
    int32_t num_ranks, ranks_per_node;
    int64_t states, transitions;
    int32_t steps;
  };
  for (const Row& row : std::vector<Row>{
           {"ring", 8, 8, 7, 0, 7},
           {"pipelined", 8, 8, 7, 0, 7},
           {"all_gather", 8, 8, 28, 21, 1},
           {"all_gather", 8, 4, 28, 21, 2},
           {"logarithmic", 8, 8, 7 + 6 + 4, 6 + 4, 3},  // those from the first parts are states
           {"logarithmic", 6, 6, 5 + 4 + 2, 4 + 2, 3},
           {"two_level", 8, 4, 6 + 6 + 1 + 3, 3 + 6, 3},
           {"two_level", 8, 8, 28, 21, 1},
           {"two_level", 6, 1, 5, 0, 5},
       }) {
    const Case c = one_document(row.num_ranks, row.ranks_per_node, row.transport);
    const LoweredPlan plan = lower_linear_all(c.plan, c.shape, c.options);
    SCOPED_TRACE(describe(c));
    EXPECT_TRUE(verify(plan).empty());
    EXPECT_EQ(sent(plan, false), row.states * state + row.transitions * transition) << row.transport;
    const int32_t needed = row.num_ranks == 6 && row.ranks_per_node == 6 ? 2 : row.steps;  // the last step's are early
    EXPECT_EQ(steps_of(plan, false), needed) << row.transport;
    EXPECT_EQ(steps_of(plan, true), needed) << row.transport;
    EXPECT_EQ(forward_traffic(c.plan, c.shape, c.options).steps, row.steps) << row.transport;
  }
}

TEST(Linear, BytesDoNotDependOnTheLength) {
  for (const TransportInfo& transport : transports()) {
    const Case brief = one_document(8, 4, std::string(transport.name)),
               lengthy = one_document(8, 4, std::string(transport.name), 1 << 20);
    EXPECT_EQ(sent(lower_linear_all(brief.plan, brief.shape, brief.options), false),
              sent(lower_linear_all(lengthy.plan, lengthy.shape, lengthy.options), false));
  }
}

// A transition that only the first part would need does not travel, nor anything of a whole document.
TEST(Linear, WholeDocumentsMoveNothing) {
  Case c = one_document(1, 1, "all_gather");
  EXPECT_EQ(forward_traffic(c.plan, c.shape, c.options).states, 0);
  c = one_document(2, 2, "all_gather");
  EXPECT_EQ(forward_traffic(c.plan, c.shape, c.options).transitions, 0);
}

// Damage to a linear program. False: there was no place for it.
bool drop_operation(Dice& dice, LoweredPlan& plan) {
  auto places = test::phase_places(plan);
  Phase& program = test::phase_at(plan, dice.one_of(places));
  if (program.operations.empty()) return false;
  program.operations.erase(program.operations.begin() + static_cast<int64_t>(dice.below(program.operations.size())));
  return true;
}

template <class Body, class Change>
bool change_one(Dice& dice, LoweredPlan& plan, Change&& change) {
  auto places = test::places_of<Body>(plan, [](const Body&, test::OperationPlace) { return true; });
  if (places.empty()) return false;
  auto& items = std::get<Body>(test::operation_at(plan, dice.one_of(places)).body).items;
  return change(items, items[dice.below(items.size())]);
}
// change(items, item) of an item of a forward or of a backward operation.
template <class Forward, class Backward, class Change>
bool change(Dice& dice, LoweredPlan& plan, Change&& change) {
  return dice.coin() ? change_one<Forward>(dice, plan, change) : change_one<Backward>(dice, plan, change);
}

bool repeat_operation(Dice& dice, LoweredPlan& plan) {
  const auto places = test::phase_places(plan);
  auto& operations = test::phase_at(plan, places[dice.below(places.size())]).operations;
  std::vector<size_t> able;
  for (size_t i = 0; i < operations.size(); ++i) {
    // Compositions may be repeated without harm.
    const auto& body = operations[i].body;
    if (traits(operations[i]).layers == Layers::linear && !std::holds_alternative<Combine>(body) &&
        !std::holds_alternative<CombineGradient>(body)) {
      able.push_back(i);
    }
  }
  if (able.empty()) return false;
  const auto at = static_cast<int64_t>(dice.one_of(able));
  const Operation copy = operations[static_cast<size_t>(at)];
  operations.insert(operations.begin() + at, copy);
  return true;
}

bool drop_wait(Dice& dice, LoweredPlan& plan) {
  std::vector<Operation*> able;
  for (const auto place : test::phase_places(plan)) {
    for (Operation& operation : test::phase_at(plan, place).operations) {
      if (!operation.waits.empty()) able.push_back(&operation);
    }
  }
  // Who only sent needs no wait: drop one that something was received for.
  if (able.empty()) return false;
  Operation& operation = *dice.one_of(able);
  const Event event = operation.waits.front();
  bool received = false;
  for (const auto place : test::phase_places(plan)) {
    auto& operations = test::phase_at(plan, place).operations;
    if (&operation < operations.data() || &operation >= operations.data() + operations.size()) continue;
    for (const Operation& other : operations) {
      const auto* exchange = std::get_if<Exchange>(&other.body);
      if (exchange == nullptr || other.signals != event) continue;
      received = std::any_of(exchange->items.begin(), exchange->items.end(),
                             [](const Message& message) { return message.direction == Direction::receive; });
    }
  }
  if (!received) return false;
  operation.waits.erase(operation.waits.begin());
  return true;
}

bool drop_part(Dice& dice, LoweredPlan& plan) {
  return change<Intra, IntraGradient>(dice, plan, [](auto& items, auto& item) {
    items.erase(items.begin() + (&item - items.data()));
    return true;
  });
}

bool forget_pending(Dice& dice, LoweredPlan& plan) {
  return change<Intra, IntraGradient>(dice, plan, [](auto&, auto& item) {
    item.pending = !item.pending;
    return true;
  });
}

bool shift_part(Dice& dice, LoweredPlan& plan) {
  return change<Intra, IntraGradient>(dice, plan, [&](auto&, auto& item) {
    dice.coin() ? void(++item.part.home_row) : void(++item.part.rows.begin);
    return true;
  });
}

bool shift_completed_part(Dice& dice, LoweredPlan& plan) {
  return change<Apply, ApplyGradient>(dice, plan, [](auto&, auto& item) {
    ++item.part.home_row;
    return true;
  });
}

bool widen_summary(Dice& dice, LoweredPlan& plan) {
  return change<Summarize, SummarizeGradient>(dice, plan, [](auto&, auto& item) {
    ++item.summary.rows.end;
    return true;
  });
}

bool swap_windows(Dice& dice, LoweredPlan& plan) {
  return change<Combine, CombineGradient>(dice, plan, [](auto&, Composition& c) {
    std::swap(c.far, c.near);
    return true;
  });
}

bool forget_transition(Dice& dice, LoweredPlan& plan) {
  return change<Combine, CombineGradient>(dice, plan, [](auto&, Composition& c) {
    if (!c.near_transition) return false;
    c.near_transition.reset();
    return true;
  });
}

template <class Item>
Block& incoming_of(Item& item) {
  if constexpr (requires { item.grad_state; }) {
    return item.grad_state;
  } else {
    return item.state;
  }
}

bool fewer_heads(Dice& dice, LoweredPlan& plan) {
  return change<Apply, ApplyGradient>(dice, plan, [](auto&, auto& item) {
    Block& block = incoming_of(item);
    if (block.heads.size() < 2) return false;
    --block.heads.end;
    return true;
  });
}

bool overlap_saved(Dice& dice, LoweredPlan& plan) {
  return change_one<Apply>(dice, plan, [](auto&, ApplyPart& part) {
    if (part.state.buffer != BufferId::saved) return false;
    part.state.offset_bytes += 64;
    return true;
  });
}

// Recomputing overwrites what forward saved.
bool recompute_saved(Dice& dice, LoweredPlan& plan) {
  Phase& recompute = dice.one_of(plan.programs).phase(PhaseKind::recompute);
  for (Operation& operation : recompute.operations) {
    const auto* apply = std::get_if<Apply>(&operation.body);
    if (apply == nullptr) continue;
    const auto saved = std::find_if(apply->items.begin(), apply->items.end(),
                                    [](const ApplyPart& part) { return part.state.buffer == BufferId::saved; });
    if (saved == apply->items.end()) continue;
    recompute.operations.push_back({{}, kNoEvent, Copy{{{saved->state, saved->state}}}});
    return true;
  }
  return false;
}

// A program of the other direction.
bool swap_directions(Dice& dice, LoweredPlan& plan) {
  RankProgram& programs = dice.one_of(plan.programs);
  if (programs.phase(PhaseKind::forward).operations.empty() && programs.phase(PhaseKind::backward).operations.empty())
    return false;
  std::swap(programs.phase(PhaseKind::forward).operations, programs.phase(PhaseKind::backward).operations);
  return true;
}

TEST(Linear, DamagedProgramsAreRefused) {
  const std::vector<test::Mutation> mutations = {{"drop_operation", drop_operation},
                                                 {"repeat_operation", repeat_operation},
                                                 {"drop_wait", drop_wait},
                                                 {"drop_part", drop_part},
                                                 {"forget_pending", forget_pending},
                                                 {"shift_part", shift_part},
                                                 {"shift_completed_part", shift_completed_part},
                                                 {"swap_directions", swap_directions},
                                                 {"recompute_saved", recompute_saved},
                                                 {"widen_summary", widen_summary},
                                                 {"swap_windows", swap_windows},
                                                 {"forget_transition", forget_transition},
                                                 {"fewer_heads", fewer_heads},
                                                 {"overlap_saved", overlap_saved}};
  for (const test::Mutation& mutation : mutations) {
    Dice dice(7);
    int done = 0;
    for (int i = 0; i < 3000 && done < 100; ++i) {
      const Case c = random_case(&dice);
      LoweredPlan plan = lower_linear_all(c.plan, c.shape, c.options);
      if (!mutation.damage(dice, plan)) continue;
      ++done;
      EXPECT_FALSE(verify(plan).empty()) << mutation.name << "\n" << describe(c) << "\n" << print(plan);
    }
    EXPECT_EQ(done, 100) << mutation.name;
  }
}

// A recurrence goes one way: what a full or prefix mask shows ahead it would leave out without a word.
TEST(Linear, MasksThatLookAheadAreRefused) {
  for (const char* fits : {"causal", "window:3", "prefix:1"}) {
    Case c = one_document(2, 2, "all_gather", 20);
    c.plan.request.documents = Documents({40}, parse_mask(fits));
    const LoweredPlan plan = lower_linear_all(c.plan, c.shape, c.options);
    EXPECT_TRUE(verify(plan).empty()) << fits;
    EXPECT_EQ(print(parse(print(plan))), print(plan));
  }
  for (const char* looks_ahead : {"full", "prefix:2"}) {
    Case c = one_document(2, 2, "all_gather", 20);
    LoweredPlan plan = lower_linear_all(c.plan, c.shape, c.options);
    c.plan.request.documents = plan.request.documents = Documents({40}, parse_mask(looks_ahead));
    EXPECT_THROW(lower_linear_all(c.plan, c.shape, c.options), Error) << looks_ahead;
    const std::vector<Finding> findings = verify(plan);
    ASSERT_EQ(findings.size(), 1u) << looks_ahead;
    EXPECT_NE(findings[0].text.find("whose tokens see none after them"), std::string::npos) << findings[0].text;
    try {
      parse(print(plan));
      ADD_FAILURE() << looks_ahead;
    } catch (const Error& error) {
      EXPECT_NE(std::string(error.what()).find("goes from a token to those after it alone"), std::string::npos)
          << error.what();
    }
  }
  EXPECT_EQ(first_looking_ahead(Documents({{40, Mask{}}, {1, parse_mask("full")}})), DocumentId(-1));
  EXPECT_EQ(first_looking_ahead(Documents({{40, Mask{}}, {2, parse_mask("full")}})), DocumentId(1));
}

TEST(Linear, BadShapesAndOptionsAreRefused) {
  Case c = one_document(2, 2, "all_gather");
  const auto text = [&] {
    try {
      lower_linear(c.plan, c.shape, c.options, Rank(0));
    } catch (const Error& error) {
      return std::string(error.what());
    }
    return std::string("nothing");
  };
  c.options.transport = "rings";
  EXPECT_NE(text().find("did you mean 'ring'"), std::string::npos) << text();
  c.options = {"pipelined", 5};
  EXPECT_NE(text().find("5 blocks of 4 heads"), std::string::npos) << text();
  c.options = {};
  c.shape.num_kv_heads = 2;
  EXPECT_NE(text().find("2 kv heads"), std::string::npos) << text();
}

}  // namespace
}  // namespace evenspan
