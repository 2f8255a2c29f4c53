#include "evenspan/calibrate/command.h"

#include "evenspan/core/error.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace evenspan::calibrate {
namespace {

using testing::HasSubstr;

std::string command_refusal(const std::vector<std::string>& words) {
  try {
    parse_command(words);
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

TEST(Command, ReadsEveryOption) {
  const Command command = parse_command(
      {"--out",      "p.json", "--name=mine",      "--ranks", "3",        "--threads=2", "--heads",   "12",
       "--kv-heads", "4",      "--head-dim",       "96",      "--dtype",  "bf16",        "--longest", "512",
       "--seconds",  "1.5",    "--ranks-per-node", "3",       "--device", "cuda:1"});
  EXPECT_EQ(command.out, "p.json");
  EXPECT_EQ(command.options.name, "mine");
  EXPECT_EQ(command.ranks, 3);
  EXPECT_EQ(command.threads, 2);
  EXPECT_EQ(command.options.shape, (plan::AttentionShape{12, 4, 96, plan::ElementType::bf16}));
  EXPECT_EQ(command.options.longest, 512);
  EXPECT_EQ(command.options.seconds, 1.5);
  EXPECT_EQ(command.options.ranks_per_node, 3);
  EXPECT_EQ(command.options.device, "cuda:1");
  EXPECT_FALSE(command.help);
}

TEST(Command, HelpIsAskedForBesideAnything) {
  EXPECT_TRUE(parse_command({"--heads", "2", "--help"}).help);
  EXPECT_THAT(describe_options(), HasSubstr("--ranks-per-node N"));
}

TEST(CommandErrors, NameRuleValueAndRemedy) {
  EXPECT_THAT(command_refusal({}), HasSubstr("--out is missing"));
  EXPECT_THAT(command_refusal({"--out", "-", "--head", "4"}),
              HasSubstr("no option \"--head\"; see --help; did you mean '--heads'?"));
  EXPECT_THAT(command_refusal({"--out"}), HasSubstr("--out needs a value, FILE"));
  EXPECT_THAT(command_refusal({"--heads", "many"}),
              HasSubstr("--heads is \"many\"; give a whole number of at least 1"));
  EXPECT_THAT(command_refusal({"--ranks", "0"}), HasSubstr("--ranks is \"0\""));
  EXPECT_THAT(command_refusal({"--seconds", "-1"}), HasSubstr("--seconds is \"-1\"; give a number of at least 0"));
  EXPECT_THAT(command_refusal({"--seconds", "inf"}), HasSubstr("--seconds is \"inf\""));
  EXPECT_THAT(command_refusal({"--dtype", "f8"}), HasSubstr("f8"));
  EXPECT_THAT(command_refusal({"--device", "abacus"}), HasSubstr("--device is \"abacus\"; give a device as torch"));
}

}  // namespace
}  // namespace evenspan::calibrate
