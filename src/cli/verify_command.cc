// evenspan verify: proves a plan that was written as text.
#include <string_view>

#include "cli/command_table.h"
#include "cli/findings.h"
#include "cli/input.h"
#include "cli/options.h"
#include "cli/watch.h"
#include "evenspan/core/error.h"

namespace evenspan::cli {
namespace {

constexpr const char* kVerifySummary = "Proves a plan in text form, or says what is wrong with it and where.";

constexpr const char* kVerifyExamples = R"(Examples:
  evenspan plan --lengths lengths.txt --ranks 4 --text plan.txt && evenspan verify plan.txt
  evenspan plan --lengths lengths.txt --ranks 4 --text - | evenspan verify -

Five proofs, for all ranks at once: every allowed pair of query and key is computed exactly once (coverage); what is
read was written before (dataflow); sends and receives pair up without a deadlock (matching); every row gets its output
and gradients exactly once (result); memory keeps its bounds (memory).
Exit code: 0 proven, 1 refused, 2 no plan in the file.)";

struct VerifyArguments {
  std::string file;
  bool quiet = false;
};

Options declared(VerifyArguments* arguments) {
  Options options("evenspan verify", kVerifySummary, kVerifyExamples, {"FILE"});
  options.text("FILE", "", "A plan as `evenspan plan --text` writes it; .gz too; - is standard input",
               &arguments->file);
  options.flag("--quiet", "Say nothing of progress on standard error", &arguments->quiet);
  return options;
}

}  // namespace

OptionList verify_options() {
  VerifyArguments arguments;
  return declared(&arguments).list();
}

int verify_command(const Arguments& words) {
  VerifyArguments arguments;
  Options options = declared(&arguments);
  if (!options.parse(words)) return kDone;

  const std::string& file = arguments.file;
  const std::string name = file == "-" ? "standard input" : file;
  InputLines text(file);
  Watch watch("evenspan verify", arguments.quiet);
  plan::ProgramLines lines;
  plan::LoweredPlan plan;
  try {
    plan = plan::parse([&text](std::string_view* line) { return text.next(line); }, &lines);
  } catch (const Error& error) {
    const std::string_view said = error.what();
    const bool is_other = said.find("expected \"evenspan") != std::string_view::npos;
    fail(error.kind(), name, ": ", said, is_other ? "; a plan in text form is what evenspan plan --text writes" : "");
  }
  const std::vector<plan::Finding> findings = plan::verify(plan, watch.work().part(1, 2));
  watch.stop();
  return report(plan, findings, name, &lines, false) ? kDone : kRefused;
}

}  // namespace evenspan::cli
