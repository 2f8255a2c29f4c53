// What a user may have meant by a name that does not exist.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace evenspan {

// The least number of inserted, removed, replaced or swapped neighbouring characters that turn `a` into `b`.
int edit_distance(std::string_view a, std::string_view b);

// The candidate nearest to `name` by edit distance, case and the choice of '-' or '_' aside; the first of equals. A
// name of three characters or more that a candidate begins with counts as one edit from it. Empty when none is near:
// more than a third of the longer name would have to change (two characters are always allowed), or its every
// character.
std::string nearest_name(std::string_view name, const std::vector<std::string>& candidates);

// For the end of a message: "; did you mean 'ring'?", or "" when no candidate is near.
std::string did_you_mean(std::string_view name, const std::vector<std::string>& candidates);

// For the end of a message about a name that a table lacks: "; there are ring, usp", and did_you_mean().
std::string there_are(std::string_view name, const std::vector<std::string>& candidates);

}  // namespace evenspan
