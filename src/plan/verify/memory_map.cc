#include "plan/verify/memory_map.h"

namespace evenspan::plan::proofs {

MemoryMap::MemoryMap(const Sizes& sizes, const std::vector<Buffer>& buffers)
    : sizes_(&sizes), buffers_(&buffers), spaces_(buffers.size() + kNumTensorNames) {}

MemoryMap::Space& MemoryMap::space_of(const Block& block) {
  const auto buffer = static_cast<size_t>(block.buffer);
  const bool home = block.buffer == BufferId::home;
  return spaces_[home ? buffers_->size() + static_cast<size_t>(block.tensor) : buffer];
}

int64_t MemoryMap::address(const Block& block, int64_t row, int32_t head) const {
  return block.offset_bytes + (row - block.rows.begin) * block.row_stride * sizes_->element_bytes(block.precision) +
         (head - block.heads.begin) * sizes_->head_bytes(block.tensor, block.precision);
}

MemoryMap::Cell MemoryMap::make_cell(const Block& block, Span rows, HeadRange heads, const Contributions& set,
                                     int64_t arriving) const {
  Cell cell{block, {}, set, arriving};
  cell.block.offset_bytes = address(block, rows.begin, heads.begin);
  cell.block.rows = rows;
  cell.block.heads = heads;
  cell.area = sizes_->area(cell.block);
  return cell;
}

template <class F>
void MemoryMap::visit_pieces(const Block& block, Site site, Proof proof, F&& f) {
  const Area area = sizes_->area(block);
  int64_t found = 0;  // rows x heads
  space_of(block).cells.visit(area.begin, area.end(), [&](const Cell& cell) {
    const Block& held = cell.block;
    if (cell.arriving != kHere || held.tensor != block.tensor || held.precision != block.precision ||
        held.document != block.document) {
      return true;
    }
    if (is_state(block.tensor) && held.rows != block.rows) return true;
    const Span rows = held.rows.intersect(block.rows);
    const HeadRange heads = held.heads.intersect(block.heads);
    if (rows.empty() || heads.empty() ||
        (num_rows(held) > 1 && rows.size() > 1 && held.row_stride != block.row_stride) ||
        address(held, rows.begin, heads.begin) != address(block, rows.begin, heads.begin)) {
      return true;
    }
    found += rows.size() * heads.size();
    f(Content{rows, heads, cell.set});
    return true;
  });
  if (found != block.rows.size() * block.heads.size()) refute_read(block, site, proof);
}

std::vector<Content> MemoryMap::read(const Block& block, Site site, Proof proof) {
  if (is_given(block)) return {Content{block.rows, block.heads, {}}};
  std::vector<Content> pieces;
  visit_pieces(block, site, proof, [&pieces](const Content& piece) { pieces.push_back(piece); });
  return pieces;
}

void MemoryMap::require(const Block& block, Site site) {
  if (!is_given(block)) visit_pieces(block, site, Proof::dataflow, [](const Content&) {});
}

void MemoryMap::refute_read(const Block& block, Site site, Proof proof) {
  const Area area = sizes_->area(block);
  std::string held;
  space_of(block).cells.visit(area.begin, area.end(), [&](const Cell& cell) {
    if (overlap(area, cell.area).count == 0) return true;
    if (cell.arriving != kHere) {
      refute(proof, site, "reads ", describe(block), ", where exchange ", cell.arriving, " is bringing ",
             describe(cell.block), "; nothing has waited for it");
    }
    if (held.size() < 1000)
      held +=
          (held.empty() ? "" : "; ") + describe(cell.block) + ", row stride " + std::to_string(cell.block.row_stride);
    return true;
  });
  refute(proof, site, "reads ", describe(block), ", row stride ", block.row_stride, ", but ",
         held.empty() ? "nothing was written there" : "there is only: " + held);
}

// The heads and rows of `cell` that no hole touches.
void MemoryMap::append_rest(const Cell& cell, const Patches& holes, std::vector<Cell>* rest) const {
  struct Rectangle {
    Span rows;
    HeadRange heads;
  };
  const Block& block = cell.block;
  const int64_t head_bytes = sizes_->head_bytes(block.tensor, block.precision);
  std::vector<Rectangle> parts{Rectangle{block.rows, block.heads}};
  std::vector<Rectangle> next;
  for (const Patch& patch : holes) {
    const Span hole_rows = is_state(block.tensor)
                               ? block.rows
                               : Span{block.rows.begin + patch.row_begin, block.rows.begin + patch.row_end};
    const auto first = static_cast<int32_t>(patch.byte_begin / head_bytes);
    const auto last = static_cast<int32_t>((patch.byte_end + head_bytes - 1) / head_bytes);
    const HeadRange hole_heads{block.heads.begin + first, block.heads.begin + last};
    next.clear();
    for (const Rectangle& part : parts) {
      const Span rows = part.rows.intersect(hole_rows);
      const HeadRange heads = part.heads.intersect(hole_heads);
      if (rows.empty() || heads.empty()) {
        next.push_back(part);
        continue;
      }
      for (const Rectangle& left :
           {Rectangle{{part.rows.begin, rows.begin}, part.heads}, Rectangle{{rows.end, part.rows.end}, part.heads},
            Rectangle{rows, {part.heads.begin, heads.begin}}, Rectangle{rows, {heads.end, part.heads.end}}}) {
        if (!left.rows.empty() && !left.heads.empty()) next.push_back(left);
      }
    }
    parts.swap(next);
  }
  for (const Rectangle& part : parts) rest->push_back(make_cell(block, part.rows, part.heads, cell.set, cell.arriving));
}

void MemoryMap::check_not_sending(const Block& block, Site site) {
  const Area area = sizes_->area(block);
  space_of(block).sending.visit(area.begin, area.end(), [&](const Sending& sending) {
    if (completed_.contains(sending.exchange)) return false;
    if (overlap(sending.area, area).count == 0) return true;
    refute(Proof::dataflow, site, "overwrites ", describe(block), ", which exchange ", sending.exchange,
           " is sending; nothing has waited for it");
  });
}

// Empties the block's area of all but what arrives with exchange `arriving`, which goes as well.
void MemoryMap::erase(const Block& block, int64_t arriving, Site site) {
  Space& space = space_of(block);
  const Area area = sizes_->area(block);
  rest_.clear();
  space.cells.visit(area.begin, area.end(), [&](const Cell& cell) {
    const Patches holes = overlap(cell.area, area);
    if (holes.count == 0) return true;
    if (cell.arriving != kHere && cell.arriving != arriving) {
      refute(Proof::dataflow, site, "overwrites ", describe(block), ", where exchange ", cell.arriving, " is bringing ",
             describe(cell.block), "; nothing has waited for it");
    }
    const bool whole = area.begin <= cell.area.begin && cell.area.end() <= area.end() && area.dense();
    if (!whole) append_rest(cell, holes, &rest_);
    return false;
  });
  for (const Cell& cell : rest_) space.cells.insert(cell);
}

// The short way of erase() and insert(), when one piece takes the place of a cell of exactly this block.
bool MemoryMap::replace(const Block& block, int64_t arriving, const std::vector<Content>& pieces) {
  if (pieces.size() != 1) return false;
  bool replaced = false;
  space_of(block).cells.visit(block.offset_bytes, block.offset_bytes + 1, [&](Cell& cell) {
    if (cell.block != block || cell.arriving != arriving) return true;
    cell.set = pieces.front().set;
    cell.arriving = kHere;
    replaced = true;
    return true;
  });
  return replaced;
}

void MemoryMap::insert(const Block& block, const std::vector<Content>& pieces) {
  for (const Content& piece : pieces) {
    space_of(block).cells.insert(make_cell(block, piece.rows, piece.heads, piece.set, kHere));
  }
}

void MemoryMap::write(const Block& block, const std::vector<Content>& pieces, Site site) {
  check_not_sending(block, site);
  if (replace(block, kHere, pieces)) return;
  erase(block, kHere, site);
  insert(block, pieces);
}

void MemoryMap::expect(const Block& block, int32_t exchange, Site site) {
  check_not_sending(block, site);
  erase(block, kHere, site);
  space_of(block).cells.insert(make_cell(block, block.rows, block.heads, {}, exchange));
}

void MemoryMap::arrive(const Block& block, int32_t exchange, const std::vector<Content>& pieces, Site site) {
  if (replace(block, exchange, pieces)) return;
  erase(block, exchange, site);
  insert(block, pieces);
}

void MemoryMap::send(const Block& block, int32_t exchange) {
  if (is_given(block)) return;
  space_of(block).sending.insert(Sending{sizes_->area(block), exchange});
}

void MemoryMap::end_phase() {
  for (size_t b = 0; b < buffers_->size(); ++b) {
    if ((*buffers_)[b].lifetime == Lifetime::phase) spaces_[b] = Space{};
  }
  for (Space& space : spaces_) space.sending = {};
  completed_.clear();
}

}  // namespace evenspan::plan::proofs
