// The text form against itself, and against text that is no plan.
#include "evenspan/core/error.h"
#include "evenspan/plan/text.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "plan/text/format.h"
#include "text_sample.h"

namespace evenspan::plan {
namespace {

using ::testing::HasSubstr;

// A small plan by hand; the line numbers in the tests below count its lines.
constexpr const char* kText = R"(evenspan plan 4
documents 0 causal 6 3
shape heads=4 kv_heads=2 head_dim=8 element=f32
topology ranks=2
level ranks=2 latency_seconds=0 bytes_per_second=0
cost pair_seconds=1.0256e-08 token_seconds=0.0001839576
options strategy=ring token_slack=0.1 ranks_per_group=0 stripe_tokens=128 memory_budget_bytes=0
placement 0 d0[0:6)
placement 1 d1[0:3)
rank 0
buffer arena phase bytes=64
buffer saved step bytes=0
phase forward
  exchange signals 0 | to 1 key@home+0/16 d0[0:6) h[0:2), value@home+0/16 d0[0:6) h[0:2)
  clear after 0 | output@home+0/32 d0[0:6) h[0:4) | lse.acc@arena+0/4 d0[0:6) h[0:4)
phase backward
rank 1
buffer arena phase bytes=0
buffer saved step bytes=0
phase forward
  copy | output@home+0/32 d1[0:3) h[0:4) <- query@home+0/32 d1[0:3) h[0:4)
phase backward
end
)";

std::string with(std::string text, const std::string& from, const std::string& to) {
  const size_t at = text.find(from);
  EXPECT_NE(at, std::string::npos) << "the sample has no \"" << from << '"';
  return text.replace(at, from.size(), to);
}

std::string error_of(const std::string& text) {
  try {
    parse(text);
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::invalid_argument);
    return error.what();
  }
  return "no error";
}

TEST(TextParse, ReadsWhatItPrints) { EXPECT_EQ(print(parse(kText)), kText); }

TEST(TextParse, HoldsAnyProgramExactly) {
  for (uint64_t seed = 0; seed < 500; ++seed) {
    const LoweredPlan plan = RandomPlan(seed)();
    const std::string text = print(plan);
    LoweredPlan read;
    ASSERT_NO_THROW(read = parse(text)) << "seed " << seed << "\n" << text;
    EXPECT_EQ(read.request.documents.all(), plan.request.documents.all());
    EXPECT_EQ(read.request.shape, plan.request.shape);
    EXPECT_EQ(read.request.topology, plan.request.topology);
    EXPECT_EQ(read.request.cost, plan.request.cost);
    EXPECT_EQ(read.request.options, plan.request.options);
    EXPECT_EQ(read.placement, plan.placement);
    EXPECT_EQ(read.programs, plan.programs) << "seed " << seed;
    EXPECT_EQ(print(read), text);
  }
}

TEST(TextParse, PassesOverSpacesCommentsAndBlankLines) {
  std::string text = with(kText, "documents 0", "\n# my plan\n\t documents   0");
  text = with(text, "key@home+0/16 d0[0:6) h[0:2)", "key @ home + 0 / 16  d0 [0 : 6)h[0:2) ");
  text = with(text, "end\n", "end\r\n\n#");
  EXPECT_EQ(print(parse(text)), kText);
}

TEST(TextParse, KnowsTheLinesOfOperations) {
  ProgramLines lines;
  const std::string text = with(kText, "rank 1", "# second\nrank 1");
  parse(lines_of(text), &lines);
  EXPECT_EQ(lines.of(0, PhaseKind::forward, 0), 14);
  EXPECT_EQ(lines.of(0, PhaseKind::forward, 1), 15);
  EXPECT_EQ(lines.of(1, PhaseKind::forward, 0), 22);
  EXPECT_EQ(lines.of(1, PhaseKind::backward, 0), 0);
  EXPECT_EQ(lines.of(-1, PhaseKind::forward, 0), 0);
  EXPECT_EQ(lines.of(0, PhaseKind::forward, 2), 0);
}

struct Damage {
  const char* from;
  const char* to;
  const char* expected;  // part of the error
  friend void PrintTo(const Damage& damage, std::ostream* out) { *out << damage.to << " for " << damage.from; }
};

class TextParseErrors : public testing::TestWithParam<Damage> {};

TEST_P(TextParseErrors, NameThePlaceAndTheReason) {
  const auto& [from, to, expected] = GetParam();
  EXPECT_THAT(error_of(with(kText, from, to)), HasSubstr(expected));
}

INSTANTIATE_TEST_SUITE_P(
    Damages, TextParseErrors,
    testing::Values(
        Damage{"evenspan plan 4", "evenspan plan 1",
               "[parse] line 1, column 1: this plan has version 1 of the text form; this program reads version 4"},
        Damage{"evenspan plan 4", "PK\x03\x04", R"(line 1, column 1: expected "evenspan", found "PK\x03\x04")"},
        Damage{"evenspan plan 4", "evenspan plan",
               "line 1, column 14: expected the version of the text form, an integer from 0 to 2147483647, found the "
               "end of the line"},
        Damage{"causal", "casual", "line 2, column 1: [plan] mask is \"casual\""},
        Damage{"0 causal", "1 causal", "line 2, column 11: expected the number of the line's first document"},
        Damage{"6 3\n", "6 0\n", "line 2, column 1: [plan] document 1 has 0 tokens"},
        Damage{"6 3\n", "6 -3\n", "line 2, column 22: expected the length of a document"},
        Damage{"6 3\n", "6 99999999999999999999\n", "expected the length of a document"},
        Damage{"shape", "shapes", R"(line 3, column 1: expected "shape", found "shapes")"},
        Damage{"kv_heads=2", "kv_heads=3", "3 kv heads do not divide 4 heads"},
        Damage{"kv_heads=2", "kv_heads=0", "each is at least 1"},
        Damage{"kv_heads=2", "kv_heads=", "line 3, column 25: expected kv_heads, an integer"},
        Damage{"element=f32", "element=int8", "line 3, column 1: [plan] element type is \"int8\""},
        Damage{"topology ranks=2", "topology ranks=2000000000", "2000000000 ranks; a batch is on at most"},
        Damage{"latency_seconds=0", "latency_seconds=-5", "a topology level has a latency of -5 s"},
        Damage{"token_slack=0.1", "token_slack=1e300", "token slack is 1e+300; it is from 0 to"},
        Damage{"pair_seconds=1.0256e-08", "pair_seconds=5e-324", "s per pair and"},
        Damage{"strategy=ring", "strategy=rign", "there is no strategy \"rign\""},
        Damage{"token_slack=0.1", "token_slack=nan",
               "line 7, column 35: expected token_slack, a number, found \"nan\""},
        Damage{"pair_seconds=1", "pair_seconds=x", "line 6, column 19: expected pair_seconds, a number"},
        Damage{"placement 1", "placement 2", "line 9, column 11: expected the next rank, an integer from 1 to 1"},
        Damage{"d1[0:3)\n", "d2[0:3)\n",
               "line 9, column 14: expected a document, an integer from 0 to 1, found \"2[0:3)\""},
        Damage{"d1[0:3)\n", "d1[0:2)\n", "line 8, column 1: [placement] document 1 has 3 tokens"},
        Damage{"d0[0:6)\n", "d0[0:6) d1[0:3)\n", "line 8, column 1: [placement] document 1"},
        Damage{"d0[0:6)\n", "d0[3:6) d0[0:3)\n", "line 8, column 1: the spans of rank 0 are not in order"},
        Damage{"step bytes=0", "step bytes=-1", "line 12, column 25: expected bytes"},
        Damage{"arena phase", "arena week", "line 11, column 14: expected caller, phase or step, found \"week\""},
        Damage{"buffer saved", "buffer buffer3", "line 12, column 1: the buffers of a rank come in order, and saved"},
        Damage{"key@home", "key@buffer2", "line 14, column 39: expected the number of a buffer, an integer from 3 to"},
        Damage{"to 1", "to 2", "line 14, column 27: expected a rank, an integer from 0 to 1, found \"2\""},
        Damage{"to 1", "at 1", "line 14, column 24: expected \"to\" or \"from\", found \"at\""},
        Damage{"key@home", "kez@home", "line 14, column 29: expected a tensor, found \"kez@home+0/16\""},
        Damage{"key@home", "key@heap",
               "line 14, column 33: expected home, arena, saved, or buffer and its number, found \"heap+0/16\""},
        Damage{"+0/16", "+9999999999999999999/16", "expected an offset in bytes"},
        Damage{"+0/16 d0[0:6)", "+0/16 d0[0:6]", "line 14, column 49: expected \")\", found \"]\""},
        Damage{"h[0:2),", "h[0:2);", "line 14, column 57: expected the end of the line, found \";\""},
        Damage{"clear after 0", "clear after", "line 15, column 15: expected the number of an event"},
        Damage{"phase backward", "phase sideways",
               "line 16, column 7: expected forward, recompute or backward, found \"sideways\""},
        Damage{"  copy", "  cpoy",
               "line 21, column 3: expected an operation, \"phase\", \"rank\" or \"end\", found \"cpoy\""},
        Damage{"<-", "->", "line 21, column 42: expected \"<-\", found \"->\""},
        Damage{"end\n", "",
               "line 23, column 1: expected an operation, \"phase\", \"rank\" or \"end\", found the end of the text"},
        Damage{"end\n", "end\nend\n", "line 24, column 1: expected nothing after \"end\", found \"end\""}));

TEST(TextParse, RefusesAnEmptyText) {
  EXPECT_THAT(error_of(""), HasSubstr("[parse] line 1, column 1: expected \"evenspan plan\" and a version"));
  EXPECT_THAT(error_of("\n\n#"), HasSubstr("found the end of the text"));
}

// Every text either is a plan or is refused by an error with its place; nothing else may happen (the sanitizer builds
// run this too).
void expect_plan_or_error(const std::string& text) {
  try {
    parse(text);
  } catch (const Error& error) {
    ASSERT_EQ(error.kind(), ErrorKind::invalid_argument);
    ASSERT_THAT(error.what(), HasSubstr("[parse] line "));
    ASSERT_THAT(error.what(), HasSubstr(", column "));
  }
}

TEST(TextParseFuzz, EveryTruncationIsRefused) {
  const std::string text = kText;
  for (size_t n = 0; n < text.size() - 1; ++n) {  // without the last line feed it is still whole
    EXPECT_THAT(error_of(text.substr(0, n)), HasSubstr("[parse] line ")) << n;
  }
}

TEST(TextParseFuzz, SurvivesDamage) {
  const char* const kPieces[] = {"9223372036854775808",
                                 "-1",
                                 "2147483647",
                                 "1e999",
                                 "|",
                                 "[",
                                 "\n",
                                 "\xff",
                                 "#",
                                 " ",
                                 "rank 1",
                                 "end",
                                 "99999999",
                                 "",
                                 "d0[0:6)",
                                 "nan",
                                 "after",
                                 "window:"};
  for (uint64_t seed = 0; seed < 60; ++seed) {
    RandomPlan random(seed);
    const std::string whole = seed % 2 == 0 ? kText : print(random());
    for (int i = 0; i < 100; ++i) {
      std::string text = whole;
      for (int64_t n = random.below(3); n >= 0; --n) {
        const auto at = static_cast<size_t>(random.below(static_cast<int64_t>(text.size())));
        switch (random.below(4)) {
          case 0:
            text[at] = static_cast<char>(random.below(256));
            break;
          case 1:
            text.erase(at, static_cast<size_t>(random.below(30)));
            break;
          case 2:
            text.insert(at, kPieces[random.below(std::size(kPieces))]);
            break;
          default: {  // a part moved elsewhere
            const std::string part = text.substr(at, static_cast<size_t>(random.below(200)));
            text.insert(static_cast<size_t>(random.below(static_cast<int64_t>(text.size()))), part);
          }
        }
        if (text.empty()) text = " ";
      }
      expect_plan_or_error(text);
    }
  }
}

}  // namespace
}  // namespace evenspan::plan
