// What messages are made of: nearest names and quoted text.
#include <iomanip>
#include <sstream>
#include <string>

#include "evenspan/core/nearest.h"
#include "evenspan/core/quoted.h"
#include "gtest/gtest.h"

namespace evenspan {
namespace {

TEST(EditDistance, CountsInsertionsRemovalsReplacementsAndSwaps) {
  EXPECT_EQ(edit_distance("", ""), 0);
  EXPECT_EQ(edit_distance("ring", "ring"), 0);
  EXPECT_EQ(edit_distance("", "ring"), 4);
  EXPECT_EQ(edit_distance("ring", ""), 4);
  EXPECT_EQ(edit_distance("ring", "rings"), 1);
  EXPECT_EQ(edit_distance("ring", "rng"), 1);
  EXPECT_EQ(edit_distance("ring", "rang"), 1);
  EXPECT_EQ(edit_distance("ring", "rign"), 1);
  EXPECT_EQ(edit_distance("zigzag", "zagzig"), 2);
}

TEST(NearestName, FindsWhatWasMeant) {
  const std::vector<std::string> names = {"local", "ring", "zigzag", "sequence_aware", "usp"};
  EXPECT_EQ(nearest_name("rign", names), "ring");
  EXPECT_EQ(nearest_name("RING", names), "ring");
  EXPECT_EQ(nearest_name("Sequence-Awre", names), "sequence_aware");
  EXPECT_EQ(nearest_name("sequence", names), "sequence_aware");  // its beginning
  EXPECT_EQ(nearest_name("sewers", names), "");
  EXPECT_EQ(nearest_name("ups", names), "usp");
  EXPECT_EQ(nearest_name("xyz", names), "");
  EXPECT_EQ(nearest_name("a", names), "");
  EXPECT_EQ(nearest_name("", names), "");
  EXPECT_EQ(nearest_name("ring", {}), "");
  EXPECT_EQ(nearest_name(std::string(1000000, 'x'), names), "");
  EXPECT_EQ(did_you_mean("rign", names), "; did you mean 'ring'?");
  EXPECT_EQ(did_you_mean("xyz", names), "");
}

TEST(Quoted, StaysOnOneLineWhateverIsInIt) {
  EXPECT_EQ(quoted(""), "\"\"");
  EXPECT_EQ(quoted("two words"), "\"two words\"");
  EXPECT_EQ(quoted("a\n\"\\\xff"), "\"a\\x0a\\x22\\x5c\\xff\"");
  EXPECT_EQ(quoted("abcdef", 3), "\"abc...\"");
  EXPECT_EQ(quoted("abc", 3), "\"abc\"");
}

// With <iomanip>, a std::string found std::quoted, whose text goes on in the next line.
TEST(Quoted, IsNeverTheOneOfTheStandard) {
  std::ostringstream out;
  out << quoted(std::string("a\nb"));
  EXPECT_EQ(out.str(), "\"a\\x0ab\"");
}

}  // namespace
}  // namespace evenspan
