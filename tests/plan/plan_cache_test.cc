// The cache of plans: what is made, what is found, and that the next plan is made while the caller does something else.
#include "evenspan/plan/plan_cache.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <latch>
#include <thread>
#include <vector>

#include "evenspan/core/error.h"

namespace evenspan::plan {
namespace {

Request request_of(const std::vector<int64_t>& lengths) {
  Request request;
  request.documents = Documents(lengths, Mask{});
  request.shape = {4, 2, 8, ElementType::f32};
  request.topology = make_topology(2);
  return request;
}

LayerPlans make(const Request& request) { return {make_plan(request)}; }

TEST(PlanCache, MakesEachInputOnce) {
  PlanCache cache(make, 4);
  const auto first = cache.get(request_of({50, 20}));
  EXPECT_EQ(cache.get(request_of({50, 20})), first);
  EXPECT_NE(cache.get(request_of({20, 50})), first);
  const PlanCache::Counts counts = cache.counts();
  EXPECT_EQ(counts.made, 2);
  EXPECT_EQ(counts.hits, 1);
  EXPECT_EQ(counts.ready, 1);
  EXPECT_EQ(counts.waits, 2);
  EXPECT_EQ(counts.made_ahead, 0);
}

TEST(PlanCache, TellsEveryPartOfTheInputApart) {
  const std::vector<Request> requests = [] {
    std::vector<Request> all(9, request_of({50, 20}));
    all[1].documents = Documents(std::vector<int64_t>{50, 21}, Mask{});
    all[2].documents = Documents(std::vector<int64_t>{50, 20}, Mask{MaskKind::full, 0});
    all[3].shape.num_kv_heads = 4;
    all[4].topology = make_topology(2, 1);
    all[5].cost.pair_seconds *= 2;
    all[6].options.strategy = "ring";
    all[7].options.token_slack = 0.5;
    all[8].topology.levels[0].bytes_per_second = 1;
    return all;
  }();
  PlanCache cache(make, requests.size());
  for (const Request& request : requests) cache.get(request);
  EXPECT_EQ(cache.counts().made, static_cast<int64_t>(requests.size()));
  for (size_t i = 0; i < requests.size(); ++i) {
    for (size_t j = 0; j < i; ++j) EXPECT_NE(hash_of(requests[i]), hash_of(requests[j])) << i << " and " << j;
  }
}

TEST(PlanCache, KeepsWhatWasUsedLast) {
  PlanCache cache(make, 2);
  const auto a = request_of({1}), b = request_of({2}), c = request_of({3});
  cache.get(a);
  cache.get(b);
  cache.get(a);
  cache.get(c);  // drops b
  EXPECT_EQ(cache.counts().made, 3);
  cache.get(a);
  EXPECT_EQ(cache.counts().made, 3);
  cache.get(b);
  EXPECT_EQ(cache.counts().made, 4);
}

TEST(PlanCache, KeepsAsMuchAsIsAskedFor) {
  PlanCache cache(make, 1);
  cache.reserve(3);
  cache.reserve(2);  // takes nothing back
  const std::vector<Request> requests = {request_of({1}), request_of({2}), request_of({3})};
  for (const Request& request : requests) cache.prefetch(request);
  for (const Request& request : requests) cache.get(request);
  EXPECT_EQ(cache.counts().made, 3);
  for (const Request& request : requests) cache.get(request);
  EXPECT_EQ(cache.counts().made, 3);
}

TEST(PlanCache, PlansAheadOnAThreadOfItsOwn) {
  std::latch begun(1), goes_on(1);
  std::atomic<int> num_made = 0;
  const auto caller = std::this_thread::get_id();
  PlanCache cache(
      [&](const Request& request) {
        EXPECT_NE(std::this_thread::get_id(), caller);
        begun.count_down();
        goes_on.wait();
        ++num_made;
        return make(request);
      },
      4);
  cache.prefetch(request_of({50, 20}));
  cache.prefetch(request_of({50, 20}));
  begun.wait();
  EXPECT_EQ(num_made, 0);  // and the caller was not held up
  goes_on.count_down();
  EXPECT_EQ(cache.get(request_of({50, 20})).front()->request.documents.size(), 2);
  EXPECT_EQ(num_made, 1);
  EXPECT_EQ(cache.counts().made_ahead, 1);
  EXPECT_EQ(cache.counts().hits, 0);
}

TEST(PlanCache, APlanThatIsThereIsNotWaitedFor) {
  std::latch second(1);
  PlanCache cache(
      [&](const Request& request) {
        if (request.documents.size() == 1) second.count_down();
        return make(request);
      },
      4);
  cache.prefetch(request_of({50, 20}));
  cache.prefetch(request_of({7}));
  second.wait();  // one thread plans in order, so the first is done
  cache.get(request_of({50, 20}));
  EXPECT_EQ(cache.counts().ready, 1);
  EXPECT_EQ(cache.counts().waits, 0);
}

TEST(PlanCache, WhatPlanningThrowsComesFromGet) {
  std::atomic<bool> fails = true;
  PlanCache cache(
      [&](const Request& request) {
        if (fails) evenspan::fail(ErrorKind::resource, "[plan] no memory");
        return make(request);
      },
      4);
  cache.prefetch(request_of({5}));
  EXPECT_THROW(cache.get(request_of({5})), Error);
  EXPECT_THROW(cache.get(request_of({5})), Error);
  fails = false;
  EXPECT_EQ(cache.get(request_of({5})).size(), 1u);
  EXPECT_EQ(cache.counts().made, 1);
}

TEST(PlanCache, EndsWhileItPlans) {
  std::latch begun(1);
  std::atomic<int> num_made = 0;
  {
    PlanCache cache(
        [&](const Request& request) {
          begun.count_down();
          std::this_thread::sleep_for(std::chrono::milliseconds(20));
          ++num_made;
          return make(request);
        },
        4);
    cache.prefetch(request_of({5}));
    cache.prefetch(request_of({6}));
    begun.wait();
  }
  EXPECT_EQ(num_made, 1);  // the one under way is waited for, the other dropped
}

TEST(PlanCache, ServesManyThreads) {
  PlanCache cache(make, 3);
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&cache, t] {
      for (int64_t i = 0; i < 40; ++i) {
        const int64_t length = 1 + (i * (t + 1)) % 5;
        cache.prefetch(request_of({length + 1}));
        EXPECT_EQ(cache.get(request_of({length})).front()->request.documents.total_tokens(), length);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  const PlanCache::Counts counts = cache.counts();
  EXPECT_EQ(counts.ready + counts.waits, 160);
}

}  // namespace
}  // namespace evenspan::plan
