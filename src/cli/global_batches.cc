#include "cli/global_batches.h"

#include <algorithm>

#include "evenspan/core/error.h"
#include "evenspan/core/grouped.h"

namespace evenspan::cli {
namespace {

void check_at_least(const Options& options, const char* name, int64_t value, int64_t least) {
  if (options.given(name) && value < least) {
    fail_invalid("[options] ", name, " is ", value, "; give at least ", least);
  }
}

}  // namespace

void declare_global_batches(Options* options, GlobalBatchArguments* arguments) {
  options->integer("--global-batch-documents",
                   "Documents of a step's global batch; without, all documents are one step's", &arguments->documents,
                   Default::hidden);
  options->integer("--global-batch-tokens",
                   "Tokens of a step's global batch at most; without, all documents are one step's", &arguments->tokens,
                   Default::hidden);
  options->integer("--first-step", "The first step that is planned, counted from 0", &arguments->first_step);
  options->integer("--num-steps", "Steps that are planned; without, all from the first one on", &arguments->num_steps,
                   Default::hidden);
}

void check_global_batches(const Options& options, const GlobalBatchArguments& arguments) {
  check_at_least(options, "--global-batch-documents", arguments.documents, 1);
  check_at_least(options, "--global-batch-tokens", arguments.tokens, 1);
  check_at_least(options, "--first-step", arguments.first_step, 0);
  check_at_least(options, "--num-steps", arguments.num_steps, 1);
  if (arguments.documents > 0 && arguments.tokens > 0) {
    fail_invalid("[options] --global-batch-documents and --global-batch-tokens both say where a global batch ends; ",
                 "give one of them");
  }
  for (const char* name : {"--first-step", "--num-steps"}) {
    if (options.given(name) && arguments.documents == 0 && arguments.tokens == 0) {
      fail_invalid("[options] ", name, " has no effect where all documents are one step's; leave it out, or give ",
                   "--global-batch-documents or --global-batch-tokens");
    }
  }
}

GlobalBatches cut_global_batches(const GlobalBatchArguments& arguments, const std::vector<int64_t>& lengths) {
  GlobalBatches out;
  std::vector<size_t> ends;
  bool is_full = true;  // the last one
  if (arguments.tokens > 0) {
    out.unit = join_text("at most ", grouped(arguments.tokens), " tokens");
    int64_t tokens = 0;
    for (size_t i = 0; i < lengths.size(); ++i) {
      if (lengths[i] > arguments.tokens) {
        fail_invalid("[batch] document ", i, " has ", lengths[i], " tokens and a global batch at most ",
                     arguments.tokens, "; give a larger --global-batch-tokens, or leave the document out");
      }
      if (tokens + lengths[i] > arguments.tokens) {
        ends.push_back(i);
        tokens = 0;
      }
      tokens += lengths[i];
    }
    ends.push_back(lengths.size());
    is_full = tokens == arguments.tokens;
  } else {
    const auto all = static_cast<int64_t>(lengths.size());
    const int64_t documents = arguments.documents > 0 ? arguments.documents : all;
    if (arguments.documents > 0) out.unit = join_text(grouped(documents), documents == 1 ? " document" : " documents");
    for (int64_t end = std::min(documents, all); end < all; end += std::min(documents, all - end)) {
      ends.push_back(static_cast<size_t>(end));
    }
    ends.push_back(lengths.size());
    is_full = all % documents == 0;
  }
  if (!is_full && ends.size() > 1) {
    ends.pop_back();
    out.num_left_documents = static_cast<int64_t>(lengths.size() - ends.back());
  }
  out.num_steps = static_cast<int64_t>(ends.size());
  const int64_t first = arguments.first_step;
  const int64_t count = arguments.num_steps == 0 ? out.num_steps - first : arguments.num_steps;
  if (first >= out.num_steps || count > out.num_steps - first) {
    fail_invalid("[batch] the documents fill ", out.num_steps, out.num_steps == 1 ? " step" : " steps", ", and ",
                 arguments.num_steps == 0 ? join_text("step ", first) : join_text(count, " from step ", first, " on"),
                 " cannot be planned; steps are counted from 0, give smaller numbers");
  }
  for (int64_t step = first; step < first + count; ++step) {
    const auto at = static_cast<size_t>(step);
    const size_t begin = at == 0 ? 0 : ends[at - 1];
    out.chosen.push_back(GlobalBatch{step,
                                     static_cast<int64_t>(begin),
                                     {lengths.begin() + static_cast<std::ptrdiff_t>(begin),
                                      lengths.begin() + static_cast<std::ptrdiff_t>(ends[at])}});
  }
  return out;
}

}  // namespace evenspan::cli
