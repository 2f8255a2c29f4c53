#include "cli/input.h"
#include "evenspan/core/error.h"
#include "evenspan/plan/program.h"
#include "evenspan/plan/verify.h"
#include "fuzz/kinds.h"

namespace evenspan::fuzz {

// Few documents are planned and proven.
Kind lengths() {
  return {"lengths",
          {"\n", "#", "-", "+1", " ", "\r\n", "0x10", "1e3", "\x1f\x8b\x08", "2147483647\n", "1\n", "4096\n"},
          [](const std::string& bytes, const std::string& folder) {
            write(folder + "/lengths", bytes);
            plan::Request request;
            request.documents = plan::Documents(cli::read_lengths(folder + "/lengths", "lengths"), plan::Mask{});
            if (request.documents.size() > 12) return;
            request.shape = {4, 2, 8, plan::ElementType::bf16};
            request.topology = plan::make_topology(4, 2);
            for (const char* strategy : {"mixed", "zigzag"}) {
              request.options.strategy = strategy;
              const auto plan = plan::make_plan(request);
              if (!plan::verify(plan::lower_all(*plan)).empty()) throw InternalError("a plan of ours is not proven");
            }
          }};
}

}  // namespace evenspan::fuzz
