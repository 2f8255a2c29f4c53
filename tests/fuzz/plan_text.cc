#include "evenspan/core/error.h"
#include "evenspan/plan/text.h"
#include "evenspan/plan/verify.h"
#include "fuzz/kinds.h"

namespace evenspan::fuzz {

// What is a plan is proven or refused with findings, and printed to the same plan.
Kind plan_text() {
  return {"plan_text",
          {"documents 0 causal",
           "window:",
           "prefix:",
           "full",
           "band:",
           "level ranks=",
           "after ",
           "| ",
           "->",
           "+>",
           "<-",
           "+=",
           "d0[0:1)",
           "h[0:1)",
           "key@home+0/16",
           "lse.acc@saved+",
           "exchange signals 0",
           "attend",
           "merge",
           "states value_dim=",
           "gate=token delta_rule=1",
           "rank 0",
           "backward",
           "end\n",
           "#",
           "\n",
           "strategy=mixed"},
          [](const std::string& bytes, const std::string&) {
            const plan::LoweredPlan parsed = plan::parse(bytes);
            plan::verify(parsed);
            const std::string text = plan::print(parsed);
            if (plan::print(plan::parse(text)) != text) throw InternalError("the plan is printed to another plan");
          }};
}

}  // namespace evenspan::fuzz
