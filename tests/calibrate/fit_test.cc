#include "evenspan/calibrate/fit.h"

#include <string>

#include "evenspan/core/error.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace evenspan::calibrate {
namespace {

const std::vector<double> kBytes = {1024, 16384, 262144, 1048576, 4194304};

std::vector<double> times(double latency, double bytes_per_second, const std::vector<double>& factors) {
  std::vector<double> seconds;
  for (size_t i = 0; i < kBytes.size(); ++i) {
    seconds.push_back((latency + kBytes[i] / bytes_per_second) * factors[i % factors.size()]);
  }
  return seconds;
}

TEST(FitLine, RecoversLatencyAndBandwidth) {
  for (const double latency : {0.0, 1e-6, 6e-5, 1e-3}) {
    for (const double bandwidth : {1e8, 3e9, 4e11}) {
      const Line line = fit_line(kBytes, times(latency, bandwidth, {1}));
      EXPECT_NEAR(line.fixed_seconds, latency, 1e-6 * latency + 1e-12);
      EXPECT_NEAR(line.per_second / bandwidth, 1, 1e-6);
    }
  }
}

TEST(FitLine, NoiseOfLargeSizesDoesNotReachTheLatency) {
  const Line line = fit_line(kBytes, times(6e-5, 3e9, {1.02, 0.98, 1.01}));
  EXPECT_NEAR(line.fixed_seconds / 6e-5, 1, 0.04);
  EXPECT_NEAR(line.per_second / 3e9, 1, 0.04);
}

TEST(FitLine, NoTimeIsNegative) {
  const Line line = fit_line({1, 2, 4}, {0.5, 2, 4.5});
  EXPECT_EQ(line.fixed_seconds, 0);
  EXPECT_GT(line.per_second, 0);
}

// Two messages, the larger one faster: its rate is all that is known.
TEST(FitLine, TimesThatDoNotGrowBoundTheRate) {
  const Line line = fit_line({1, 2}, {4, 2});
  EXPECT_EQ(line.fixed_seconds, 2);
  EXPECT_EQ(line.per_second, 1);
}

}  // namespace
}  // namespace evenspan::calibrate
