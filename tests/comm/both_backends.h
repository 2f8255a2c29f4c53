// Cases for ranks that are threads, and for those of a process group that matches messages by tag.
#pragma once

#include <gtest/gtest.h>

#include "fake_group.h"
#include "ranks.h"

namespace evenspan::comm {

inline void expect_text(const std::string& error, const std::string& part) {
  EXPECT_NE(error.find(part), std::string::npos) << "no \"" << part << "\" in: " << error;
}

// Of a suite that has INSTANTIATE_TEST_SUITE_P(Backends, SUITE, testing::Bool(), backend_name).
class Both : public testing::TestWithParam<bool> {
 protected:
  static bool is_group() { return GetParam(); }
  // What `body` throws, by rank.
  static std::vector<std::string> errors_of(int32_t num_ranks, const Body& body) {
    if (is_group()) return FakeGroup(num_ranks).errors_of(body);
    return comm::errors_of(num_ranks, body, {std::chrono::seconds(5)});
  }
  static void expect_no_errors(int32_t num_ranks, const Body& body) {
    for (const std::string& error : errors_of(num_ranks, body)) EXPECT_EQ(error, "");
  }
};

inline std::string backend_name(const testing::TestParamInfo<bool>& i) { return i.param ? "Groups" : "Threads"; }

}  // namespace evenspan::comm
