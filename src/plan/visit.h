// What all operations have in common, read off their fields (operation/traits.h).
#pragma once

#include <optional>
#include <variant>
#include <vector>

#include "evenspan/plan/program.h"

namespace evenspan::plan {

template <class... Fs>
struct Overloaded : Fs... {
  using Fs::operator()...;
};
template <class... Fs>
Overloaded(Fs...) -> Overloaded<Fs...>;

// Of an item's fields the blocks: calls f(block, access) for each.
template <class F>
class BlockFields {
 public:
  BlockFields(const AttentionShape& shape, F& f) : shape_(shape), f_(f) {}

  template <class B>
  void block(B& block, Access access) {
    f_(block, access);
  }
  template <class B>
  void optional(std::string_view, B& block, Access access) {
    if (block) f_(*block, access);
  }
  template <class List>
  void blocks(List& list, Access access) {
    for (auto& block : list) f_(block, access);
  }
  template <class Uses>
  void part(const Part& part, const Uses& uses) {
    for (const RowUse& use : uses) {
      if (width(use.tensor, shape_) == 0) continue;
      Block rows = home_rows(part, use.tensor, shape_);
      f_(rows, use.access);
    }
  }
  void sign(std::string_view) {}
  template <class T>
  void choice(const T&, std::string_view, std::string_view) {}
  void word(bool, std::string_view) {}
  void tile(TileKind, int64_t) {}
  void peer(Rank) {}

 private:
  const AttentionShape& shape_;
  F& f_;
};

// Calls f(block, access) for every block of an item of an operation `Body`, in the order of the text form. `item` may
// be const or not; f gets the blocks accordingly. Rows of a part are blocks that are made for the call.
template <class Body, class Item, class F>
void for_each_block_of(Item& item, const AttentionShape& shape, F&& f) {
  BlockFields<F> fields(shape, f);
  Body::visit(fields, item);
}

// Of all items of an operation.
template <class Op, class F>
void for_each_block(Op& operation, const AttentionShape& shape, F&& f) {
  std::visit(
      [&](auto& body) {
        for (auto& item : body.items) for_each_block_of<std::remove_cvref_t<decltype(body)>>(item, shape, f);
      },
      operation.body);
}

}  // namespace evenspan::plan
