// Plans as they are written, strategy by strategy: a change of a strategy, of lowering or of the text form shows as a
// difference in tests/golden/. After an intended change:
//   build/bin/evenspan_plan_tests --update_golden --gtest_filter='*Golden*'
#include <filesystem>
#include <fstream>
#include <optional>
#include <set>
#include <sstream>

#include "evenspan/plan/linear.h"
#include "evenspan/plan/text.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "plan/strategy/strategy.h"

namespace evenspan::plan {
namespace {

namespace fs = std::filesystem;

bool update_golden = false;

const fs::path& folder() {
  static const fs::path path = fs::path(EVENSPAN_SOURCE_DIR) / "tests/golden";
  return path;
}

std::vector<std::string> lines_of(const std::string& text) {
  std::vector<std::string> lines;
  std::istringstream in(text);
  for (std::string line; std::getline(in, line);) lines.push_back(line);
  return lines;
}

// Shows the first line that differs and not two whole plans.
void expect_same_lines(const std::string& text, const std::string& golden, const fs::path& file) {
  const auto now = lines_of(text), then = lines_of(golden);
  const auto [at, was] = std::mismatch(now.begin(), now.end(), then.begin(), then.end());
  const auto line_or_end = [](auto line, const auto& lines) { return line == lines.end() ? "(the end)" : *line; };
  EXPECT_TRUE(at == now.end() && was == then.end())
      << file << ", line " << was - then.begin() + 1 << "\n  was: " << line_or_end(was, then)
      << "\n  is:  " << line_or_end(at, now) << "\nIf that is meant: evenspan_plan_tests --update_golden";
}

struct GoldenPlan {
  std::string name;  // of the file
  Request request;
  std::optional<StateOptions> states = {};  // of a linear layer on the plan
  friend void PrintTo(const GoldenPlan& plan, std::ostream* out) { *out << plan.name; }
};

// Two nodes of two ranks; a document that is cut and one that is not.
Request small_request(const std::string& strategy) {
  Request request;
  request.documents = Documents({9, 1}, Mask{});
  request.shape = AttentionShape{2, 1, 4, ElementType::f32};
  request.topology = make_topology(4, 2);
  request.options.strategy = strategy;
  request.options.stripe_tokens = strategy == "striped" ? 2 : request.options.stripe_tokens;
  return request;
}

std::vector<GoldenPlan> golden_plans() {
  std::vector<GoldenPlan> plans;
  for (const Strategy& strategy : strategies()) {
    plans.push_back({std::string(strategy.name), small_request(std::string(strategy.name))});
  }
  GoldenPlan masks{"masks", small_request("sequence_aware")};
  masks.request.documents = Documents({Document{12, Mask{MaskKind::window, 3}}, Document{6, Mask{MaskKind::full, 0}},
                                       Document{9, Mask{MaskKind::prefix, 5}}});
  masks.request.topology = make_topology(3);
  masks.request.shape = AttentionShape{3, 1, 4, ElementType::bf16};
  plans.push_back(std::move(masks));
  for (const TransportInfo& transport : transports()) {
    const std::string name(transport.name);
    plans.push_back({"linear_" + name, small_request("zigzag"), StateOptions{name, 0}});
  }
  return plans;
}

std::string text_of(const GoldenPlan& golden) {
  const auto plan = make_plan(golden.request);
  if (!golden.states) return print(lower_all(*plan));
  AttentionShape shape{2, 2, 4, ElementType::f32, {}};
  shape.state = {3, Gate::channel, false, false, true};
  return print(lower_linear_all(*plan, shape, *golden.states));
}

class Golden : public testing::TestWithParam<GoldenPlan> {};

TEST_P(Golden, PlanIsUnchanged) {
  const fs::path file = folder() / (GetParam().name + ".txt");
  const std::string text = text_of(GetParam());
  if (update_golden) std::ofstream(file) << text;
  std::ifstream in(file);
  ASSERT_TRUE(in) << file << " is missing; evenspan_plan_tests --update_golden writes it";
  std::ostringstream golden;
  golden << in.rdbuf();
  expect_same_lines(text, golden.str(), file);
  EXPECT_EQ(print(parse(golden.str())), golden.str());
}

INSTANTIATE_TEST_SUITE_P(Plans, Golden, testing::ValuesIn(golden_plans()),
                         [](const auto& info) { return info.param.name; });

TEST(GoldenFiles, EachIsOfAPlan) {
  std::set<std::string> known;
  for (const GoldenPlan& plan : golden_plans()) known.insert(plan.name);
  for (const auto& entry : fs::directory_iterator(folder())) {
    EXPECT_TRUE(known.count(entry.path().stem())) << entry.path() << " belongs to no plan; delete it";
  }
}

}  // namespace
}  // namespace evenspan::plan

// Google Test's own main, and one flag.
int main(int argc, char** argv) {
  testing::InitGoogleMock(&argc, argv);
  for (int i = 1; i < argc; ++i) evenspan::plan::update_golden |= std::string(argv[i]) == "--update_golden";
  return RUN_ALL_TESTS();
}
