// What every operation of the plan language has in common.
//
// An operation is a struct with `kTraits`, a list `items` of what it does, and one function that names the fields of an
// item in the order of the text form:
//
//   template <class Fields, class Item>
//   static void visit(Fields& fields, Item& item);
//
// `Item` is const or not. Everything that treats all operations alike is a `Fields` with these members: printing and
// parsing (plan/text), the blocks that an operation reads and writes (plan/visit.h).
//
//   block(block, access)           a block
//   optional(sign, block, access)  a std::optional of a block, behind a sign where it is there
//   blocks(list, access)           blocks with commas between them
//   part(part, uses)               a home span; `uses` are the home tensors of it that the operation reads and writes
//   sign(text)                     a sign between two fields
//   choice(value, first, second)   an enum or bool of two values, each with its sign
//   word(flag, text)               a word that is there when the flag is set
//   tile(kind, window)             the kind of a tile, and the window of those that have one
//   peer(rank)                     another rank
#pragma once

#include <array>
#include <string_view>

#include "evenspan/plan/block.h"

namespace evenspan::plan {

enum class Layers : uint8_t { softmax, linear, all };
enum class Passes : uint8_t { forward, backward, both };

// Where an operation may stand.
struct OperationTraits {
  std::string_view name;  // in the text form
  Layers layers = Layers::all;
  Passes passes = Passes::both;
  bool starts = false;  // something that goes on beside the operations after it, and signals an event when it ends
};

// A home tensor that an operation on parts reads or writes.
struct RowUse {
  TensorName tensor;
  Access access;
};

}  // namespace evenspan::plan
