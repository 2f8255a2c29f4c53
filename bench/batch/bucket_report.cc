// How much longer documents count in length buckets (src/batch/buckets.h) than they are, beside what FlexSP published
// (arXiv 2412.01523): a Markdown table on standard output.
//
// Run: evenspan_batch_bucket_report LENGTHS [FIRST_STEP NUM_STEPS]
// LENGTHS has a number a line; steps of 512 documents from 10 on, 40 of them, if nothing is said.
#include <algorithm>
#include <array>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <map>
#include <span>
#include <vector>

#include "batch/buckets.h"
#include "batch/groups.h"
#include "evenspan/batch/published.h"

namespace evenspan::batch {
namespace {

constexpr size_t kDocumentsOfStep = 512;
constexpr int64_t kBuckets = 16;
constexpr int64_t kInterval = 2048;

struct Counted {
  int64_t tokens = 0;
  int64_t by_program = 0;   // too many, in buckets by dynamic programming
  int64_t by_interval = 0;  // in intervals of one width, as long as the longest there

  void add(const Counted& other) {
    tokens += other.tokens;
    by_program += other.by_program;
    by_interval += other.by_interval;
  }
};

Counted count(std::span<const DocumentIndex> documents, std::span<const int64_t> lengths) {
  Counted out;
  std::map<int64_t, int64_t> longest;  // by interval
  for (const DocumentIndex document : documents) {
    const int64_t length = lengths[static_cast<size_t>(document)];
    out.tokens += length;
    int64_t& known = longest[(length - 1) / kInterval];
    known = std::max(known, length);
  }
  out.by_program = -out.tokens;
  out.by_interval = -out.tokens;
  const int64_t num_buckets = std::min(kBuckets, static_cast<int64_t>(documents.size()));
  for (const Bucket& bucket : make_buckets(documents, lengths, num_buckets)) {
    out.by_program += bucket.length * static_cast<int64_t>(bucket.documents.size());
  }
  for (const DocumentIndex document : documents) {
    out.by_interval += longest[(lengths[static_cast<size_t>(document)] - 1) / kInterval];
  }
  return out;
}

// Of the steps, in percent.
struct Errors {
  double most_by_program = 0, most_by_interval = 0, sum_by_program = 0, sum_by_interval = 0;

  void add(const Counted& counted) {
    const double by_program = 100.0 * static_cast<double>(counted.by_program) / static_cast<double>(counted.tokens);
    const double by_interval = 100.0 * static_cast<double>(counted.by_interval) / static_cast<double>(counted.tokens);
    most_by_program = std::max(most_by_program, by_program);
    most_by_interval = std::max(most_by_interval, by_interval);
    sum_by_program += by_program;
    sum_by_interval += by_interval;
  }
};

int report(const char* path, size_t first_step, size_t num_steps) {
  std::ifstream in(path);
  std::vector<int64_t> all;
  for (int64_t length = 0; in >> length;) all.push_back(length);
  all = published_lengths(all);
  if (num_steps == 0 || all.size() < (first_step + num_steps) * kDocumentsOfStep) {
    std::fprintf(stderr, "%s has lengths of %zu documents, of which %zu steps from step %zu on need %zu\n", path,
                 all.size(), num_steps, first_step, (first_step + num_steps) * kDocumentsOfStep);
    return 1;
  }
  const Cost cost = published_cost("7b", 64);
  Errors first, batches, step;
  for (size_t number = first_step; number < first_step + num_steps; ++number) {
    const std::span<const int64_t> lengths = std::span(all).subspan(number * kDocumentsOfStep, kDocumentsOfStep);
    const std::vector<DocumentIndex> documents = longest_first(lengths);
    Counted of_batches;
    size_t begin = 0;
    for (const size_t end : cut_evenly(documents, lengths, lower_bound(lengths, cost).least_micro_batches)) {
      const Counted counted = count(std::span(documents).subspan(begin, end - begin), lengths);
      if (begin == 0) first.add(counted);
      of_batches.add(counted);
      begin = end;
    }
    batches.add(of_batches);
    step.add(count(documents, lengths));
  }
  std::printf("| tokens too many, of all | 16 buckets: largest | mean | intervals of 2K: largest | mean |\n");
  std::printf("|---|---|---|---|---|\n");
  const auto n = static_cast<double>(num_steps);
  const auto print = [&](const char* name, const Errors& errors) {
    std::printf("| %s | %.1f %% | %.1f %% | %.1f %% | %.1f %% |\n", name, errors.most_by_program,
                errors.sum_by_program / n, errors.most_by_interval, errors.sum_by_interval / n);
  };
  std::printf("| published, Wikipedia | 2.3 %% | - | 22.1 %% | - |\n");
  print("micro-batch of the longest documents", first);
  print("all micro-batches of a step", batches);
  print("the step as one", step);
  return 0;
}

}  // namespace
}  // namespace evenspan::batch

int main(int argc, char** argv) {
  if (argc != 2 && argc != 4) {
    std::fprintf(stderr, "evenspan_batch_bucket_report LENGTHS [FIRST_STEP NUM_STEPS]\n");
    return 2;
  }
  return evenspan::batch::report(argv[1], argc > 2 ? std::strtoull(argv[2], nullptr, 10) : 10,
                                 argc > 3 ? std::strtoull(argv[3], nullptr, 10) : 40);
}
