#include <gtest/gtest.h>

#include "evenspan/core/error.h"
#include "evenspan/plan/request.h"

namespace evenspan::plan {
namespace {

std::string refusal(const Topology& topology, int32_t num_replicas) {
  try {
    topology_of_replica(topology, num_replicas);
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

TEST(TopologyOfReplica, IsTheWholeOfOne) {
  for (const int32_t node : {0, 4, 5, 8}) {  // the last node may be smaller
    EXPECT_EQ(topology_of_replica(make_topology(12, node), 1), make_topology(12, node));
  }
}

TEST(TopologyOfReplica, LiesInANodeOrOnWholeOnes) {
  const Topology nodes = make_topology(16, 4);
  EXPECT_EQ(topology_of_replica(nodes, 2), make_topology(8, 4));
  for (const int32_t replicas : {4, 8, 16}) {
    EXPECT_EQ(topology_of_replica(nodes, replicas), make_topology(16 / replicas, 0));
  }
  EXPECT_EQ(topology_of_replica(make_topology(10, 8), 5), make_topology(2, 0));
  EXPECT_EQ(topology_of_replica(make_topology(6, 0), 3), make_topology(2, 0));
}

TEST(TopologyOfReplica, KeepsTheLevelsThatItSpans) {
  const Topology racks{16, {{2, 1e-6, 4e11}, {8, 2e-6, 5e10}, {16, 3e-6, 1e10}}};
  EXPECT_EQ(topology_of_replica(racks, 2), (Topology{8, {{2, 1e-6, 4e11}, {8, 2e-6, 5e10}}}));
  EXPECT_EQ(topology_of_replica(racks, 4), (Topology{4, {{2, 1e-6, 4e11}, {4, 2e-6, 5e10}}}));
  EXPECT_EQ(topology_of_replica(racks, 8), (Topology{2, {{2, 1e-6, 4e11}}}));
  EXPECT_EQ(topology_of_replica(racks, 16), (Topology{1, {{1, 1e-6, 4e11}}}));
}

TEST(TopologyOfReplica, WhatIsNotAlikeIsRefusedWithWhatWouldBe) {
  EXPECT_EQ(refusal(make_topology(12, 4), 2),
            "[topology] replicas lie alike on the machine, each inside a node or on whole ones, but 2 replicas of 6 "
            "ranks do not on nodes of 4 ranks; give one of 1, 3, 6, 12 replicas, or other nodes");
  EXPECT_NE(refusal(make_topology(24, 8), 2), "");
  EXPECT_EQ(refusal(make_topology(24, 8), 3), "");
}

}  // namespace
}  // namespace evenspan::plan
