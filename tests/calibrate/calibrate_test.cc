// Real measurements, small ones: what they are is the machine's matter, what is made of them is tested.
#include "evenspan/calibrate/calibrate.h"

#include <nlohmann/json.hpp>

#include <mutex>

#include "calibrate/parts.h"
#include "evenspan/core/error.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace evenspan::calibrate {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

Options small() {
  Options options;
  options.name = "small";
  options.shape = {2, 1, 8, plan::ElementType::f32};
  options.longest = 48;
  options.seconds = 0;
  return options;
}

std::string refusal(const Options& options, int32_t num_ranks) {
  try {
    comm::run_threads(num_ranks, [&](const comm::Communicator& c) { calibrate(options, c); });
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

TEST(GridPoints, EndAtTheLongest) {
  EXPECT_THAT(grid_points({8, 11, 1}, 48, Steps::doubles), ElementsAre(19, 27, 43, 48));
  EXPECT_THAT(grid_points({8, 11, 1}, 48, Steps::halves), ElementsAre(19, 23, 27, 35, 43, 48));
  EXPECT_THAT(grid_points({128, 0, 128}, 512, Steps::doubles), ElementsAre(128, 256, 512));
  EXPECT_THAT(grid_points({8, 11, 1}, 19, Steps::halves), ElementsAre(19));
}

TEST(Calibrate, EveryRankGetsTheSameValidProfile) {
  for (const int32_t num_ranks : {2, 3}) {
    std::mutex mutex;
    std::vector<std::string> texts;
    Calibration last;
    comm::run_threads(num_ranks, [&](const comm::Communicator& communicator) {
      const Calibration own = calibrate(small(), communicator);
      const std::lock_guard lock(mutex);
      texts.push_back(to_json(own));
      last = own;
    });
    ASSERT_EQ(texts.size(), static_cast<size_t>(num_ranks));
    for (const std::string& text : texts) EXPECT_EQ(text, texts[0]);
    simulate::validate(last.profile);
    EXPECT_EQ(last.profile.ranks_per_node, num_ranks);
    EXPECT_EQ(last.profile.links.size(), 1U);
    EXPECT_EQ(last.profile.attention[0].queries.back(), 48);
  }
}

TEST(Calibrate, NodesHaveALinkBetweenThem) {
  Options options = small();
  options.ranks_per_node = 2;
  comm::run_threads(4, [&](const comm::Communicator& communicator) {
    const Calibration own = calibrate(options, communicator);
    EXPECT_EQ(own.profile.links.size(), 2U);
    EXPECT_EQ(own.profile.ranks_per_node, 2);
  });
}

TEST(Calibrate, AcceptsTypesThatAreAccumulatedInAnother) {
  Options options = small();
  options.shape.element = plan::ElementType::bf16;
  comm::run_threads(2, [&](const comm::Communicator& communicator) { calibrate(options, communicator); });
}

TEST(CalibrateErrors, NameRuleValuesAndRemedy) {
  EXPECT_THAT(refusal(small(), 1), HasSubstr("links are measured between ranks, there is 1; give at least 2"));
  Options options = small();
  options.shape.num_kv_heads = 3;
  EXPECT_THAT(refusal(options, 2), HasSubstr("there are 2 heads, 3 kv heads of 8"));
  options = small();
  options.longest = 18;
  EXPECT_THAT(refusal(options, 2), HasSubstr("the grid begins at 19 rows, its longest point is 18"));
  options = small();
  options.ranks_per_node = 2;
  EXPECT_THAT(refusal(options, 3), HasSubstr("3 ranks are no nodes of 2"));
}

TEST(ToJson, HasALineForEachRowAndSixDigits) {
  Calibration calibration;
  calibration.about = "made \"up\"";
  calibration.sources = {{"links", "made up"}};
  simulate::Profile& profile = calibration.profile;
  profile.name = "x";
  simulate::AttentionTimes times;
  times.head_dim = 8;
  times.elements = {plan::ElementType::bf16, plan::ElementType::f16};
  times.queries = {1, 2};
  times.keys = {3};
  times.forward.seconds = {1.23456789e-5, 2};
  times.backward.seconds = {3, 4};
  profile.attention = {times};
  profile.links = {{1, 2, 3, 4}};
  const std::string text = to_json(calibration);
  EXPECT_THAT(text, HasSubstr("\"seconds\": [\n          [1.23457e-05],\n          [2.0]\n        ]"));
  const nlohmann::json json = nlohmann::json::parse(text);
  EXPECT_EQ(json["about"], calibration.about);
  EXPECT_EQ(json["sources"]["links"], "made up");
  EXPECT_EQ(json["attention"][0]["dtypes"], nlohmann::json({"bf16", "f16"}));
  EXPECT_EQ(json["links"][0]["cards"], 3);
}

}  // namespace
}  // namespace evenspan::calibrate
