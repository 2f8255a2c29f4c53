// What lies where in the memory of one rank, symbolically.
#pragma once

#include <unordered_set>
#include <vector>

#include "plan/verify/contributions.h"
#include "plan/verify/geometry.h"

namespace evenspan::plan::proofs {

// Rows x heads of a block with one set of contributions (empty for tensors that are no partial).
struct Content {
  Span rows;
  HeadRange heads;
  Contributions set;
};

// Contents of the buffers and the home tensors of a rank. What refutes names `site` and the content or
// exchange in the way. `exchange` is an exchange's id.
class MemoryMap {
 public:
  // REQUIRES: both outlive it.
  MemoryMap(const Sizes& sizes, const std::vector<Buffer>& buffers);

  // Whether the block is a given home tensor: there is nothing to track.
  static bool is_given(const Block& block) {
    return block.buffer == BufferId::home &&
           (is_state(block.tensor) ? is_given_state(block.tensor) : !is_partial(block.tensor));
  }

  // The pieces that the block holds. Refutes (as `proof`) when a row of a head is missing, is of something else, or has
  // not arrived.
  std::vector<Content> read(const Block& block, Site site, Proof proof = Proof::dataflow);
  // As read(), for who needs no more than that it is there.
  void require(const Block& block, Site site);
  // Overwrites the block's area. Refutes when something is arriving or being sent there.
  void write(const Block& block, const std::vector<Content>& pieces, Site site);

  // Starts a receive: until arrive(), the area can be neither read nor written.
  void expect(const Block& block, int32_t exchange, Site site);
  void arrive(const Block& block, int32_t exchange, const std::vector<Content>& pieces, Site site);
  // Starts a send: until complete(exchange), the area cannot be written.
  void send(const Block& block, int32_t exchange);
  void complete(int32_t exchange) { completed_.insert(exchange); }

  // A phase is over, with all its exchanges: what lived as long as it is gone.
  void end_phase();

 private:
  static constexpr int64_t kHere = int64_t{1} << 40;  // no exchange has this id

  struct Cell {
    Block block;
    Area area;
    Contributions set;
    int64_t arriving = kHere;  // id of the exchange that brings it
    int64_t begin() const { return area.begin; }
    int64_t end() const { return area.end(); }
  };
  struct Sending {
    Area area;
    int32_t exchange;
    int64_t begin() const { return area.begin; }
    int64_t end() const { return area.end(); }
  };
  struct Space {
    ExtentIndex<Cell> cells;
    ExtentIndex<Sending> sending;
  };

  Space& space_of(const Block& block);
  int64_t address(const Block& block, int64_t row, int32_t head) const;
  Cell make_cell(const Block& block, Span rows, HeadRange heads, const Contributions& set, int64_t arriving) const;
  template <class F>
  void visit_pieces(const Block& block, Site site, Proof proof, F&& f);
  void append_rest(const Cell& cell, const Patches& holes, std::vector<Cell>* rest) const;
  void erase(const Block& block, int64_t arriving, Site site);
  bool replace(const Block& block, int64_t arriving, const std::vector<Content>& pieces);
  void insert(const Block& block, const std::vector<Content>& pieces);
  void check_not_sending(const Block& block, Site site);
  [[noreturn]] void refute_read(const Block& block, Site site, Proof proof);

  const Sizes* sizes_;
  const std::vector<Buffer>* buffers_;
  std::vector<Space> spaces_;              // each buffer, then each home tensor
  std::unordered_set<int32_t> completed_;  // ids
  std::vector<Cell> rest_;                 // scratch of erase()
};

}  // namespace evenspan::plan::proofs
