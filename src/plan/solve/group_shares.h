// Which groups of ranks get which documents, and how much of those that are cut.
#pragma once

#include <map>
#include <vector>

#include "evenspan/plan/request.h"
#include "plan/solve/deal.h"

namespace evenspan::plan {

// Unevenness, as a part of the mean, that is not worth another cut or another shared document.
constexpr double kUneven = 5e-4;

// A document or a part of one.
struct Fraction {
  size_t document = 0;
  double part = 1;  // in (0, 1]
};

// Tokens and attention seconds of a share, whose kernels have rows as few as a document of its size. Where pairs cost
// nothing, attention stands for what tokens cost.
Load share_load(const Request& request, const Fraction& share);

// The groups that have shares of a document, ascending, and their parts of it.
struct DocumentParts {
  std::vector<size_t> groups;
  std::vector<double> parts;
};
std::map<size_t, DocumentParts> parts_by_document(const std::vector<std::vector<Fraction>>& shares);

// The shares of each group, with tokens and attention even as far as that is possible; see place_mixed(). Parts of a
// document add up to 1. Deterministic.
std::vector<std::vector<Fraction>> share_among_groups(const Request& request, int32_t num_groups);

}  // namespace evenspan::plan
