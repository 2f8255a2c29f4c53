// Wrong input and failing ranks: every rank gets an error that says why, and none hangs.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "evenspan/core/error.h"
#include "support/reference.h"

namespace evenspan {
namespace {

plan::Request request_of(std::vector<int64_t> lengths, double token_slack = 0.1) {
  plan::Request request;
  request.documents = plan::Documents(lengths, {});
  request.shape = plan::AttentionShape{4, 2, 8, plan::ElementType::f32};
  request.topology = plan::make_topology(3);
  request.options.token_slack = token_slack;
  return request;
}

// The texts of the errors that the ranks got; empty where a rank got none.
std::vector<std::string> errors_of(const std::function<void(const comm::Communicator&)>& body) {
  std::vector<std::string> errors(3);
  comm::run_threads(3, [&](const comm::Communicator& communicator) {
    try {
      body(communicator);
    } catch (const Error& error) {
      errors[static_cast<size_t>(communicator.rank().value)] = error.what();
    }
  });
  return errors;
}

TEST(Errors, ADifferentBatchOnOneRankIsAnErrorOnAll) {
  const auto errors = errors_of([](const comm::Communicator& communicator) {
    const bool other = communicator.rank() == Rank(1);
    const run::Executable executable(plan::make_plan(request_of({40, other ? 8 : 9, 3})), communicator);
  });
  for (const std::string& error : errors) {
    EXPECT_NE(error.find("different plans"), std::string::npos) << error;
    EXPECT_NE(error.find("document lengths"), std::string::npos) << error;
    EXPECT_EQ(error.find("masks"), std::string::npos) << error;
  }
}

TEST(Errors, ADifferentOptionOnOneRankIsAnErrorOnAll) {
  const auto errors = errors_of([](const comm::Communicator& communicator) {
    const bool other = communicator.rank() == Rank(2);
    const run::Executable executable(plan::make_plan(request_of({40, 8, 3}, other ? 0.1 : 0.1000001)), communicator);
  });
  for (const std::string& error : errors) EXPECT_NE(error.find("options"), std::string::npos) << error;
}

TEST(Errors, WrongTensorsAreRefusedAndTheOtherRanksHear) {
  struct Case {
    at::ScalarType type;
    int64_t rows, heads;
    const char* says;
  };
  for (const Case& wrong : {Case{at::kDouble, 0, 4, "the plan is for Float"}, Case{at::kFloat, 1, 4, "has shape"},
                            Case{at::kFloat, 0, 5, "has shape"}}) {
    const auto errors = errors_of([&](const comm::Communicator& communicator) {
      const run::Executable executable(plan::make_plan(request_of({40, 8, 3})), communicator);
      const int64_t rows = executable.num_tokens();
      const at::Tensor kv = at::zeros({rows, 2, 8});
      const bool bad = communicator.rank() == Rank(0);
      const at::Tensor query =
          bad ? at::zeros({rows + wrong.rows, wrong.heads, 8}, wrong.type) : at::zeros({rows, 4, 8});
      run::attention(query, kv, kv, executable);
    });
    EXPECT_NE(errors[0].find(wrong.says), std::string::npos) << errors[0];
  }
}

TEST(Errors, ACommunicatorOfAnotherSizeIsRefused) {
  const auto errors = errors_of([](const comm::Communicator& communicator) {
    auto request = request_of({40, 8, 3});
    request.topology = plan::make_topology(2);
    const run::Executable executable(plan::make_plan(request), communicator);
  });
  for (const std::string& error : errors) EXPECT_NE(error.find("is for 2 ranks"), std::string::npos) << error;
}

TEST(Errors, ARankThatLeavesMidStepIsNamed) {
  const auto errors = errors_of([](const comm::Communicator& communicator) {
    auto request = request_of({90});
    request.options.strategy = "ring";
    const run::Executable executable(plan::make_plan(request), communicator);
    if (communicator.rank() == Rank(1)) return;
    const at::Tensor query = at::zeros({executable.num_tokens(), 4, 8}),
                     kv = at::zeros({executable.num_tokens(), 2, 8});
    run::attention(query, kv, kv, executable);
  });
  for (const int rank : {0, 2}) {
    EXPECT_NE(errors[static_cast<size_t>(rank)].find("rank 1"), std::string::npos) << errors[static_cast<size_t>(rank)];
  }
}

}  // namespace
}  // namespace evenspan
