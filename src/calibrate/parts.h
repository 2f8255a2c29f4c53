// The parts of a profile, each with the measurements that it comes from: made before the bench measures, it adds its
// tasks; `finish` makes numbers of their times.
#pragma once

#include <vector>

#include "calibrate/bench.h"
#include "calibrate/programs.h"
#include "evenspan/simulate/profile.h"

namespace evenspan::calibrate {

// Lengths that are measured, ascending: powers of two from `first` on, each `beyond` longer, below `longest`, and
// `longest`; `halves` puts a point between each two.
struct Grid {
  int64_t first = 16;
  int64_t beyond = 0;
  int64_t tile = 1;  // of the kernels, as AttentionTimes has it
};
enum class Steps : uint8_t { doubles, halves };
std::vector<int64_t> grid_points(const Grid& grid, int64_t longest, Steps steps);

// On a processor kernels are up to a fifth faster where rows are whole vectors, which documents seldom are: the points
// lie between. On other devices kernels work on whole tiles of 128 rows.
Grid grid_of(c10::Device device);

class AttentionPart {
 public:
  AttentionPart(const Workbench& workbench, const Grid& grid, int64_t longest, Bench* bench);
  simulate::AttentionTimes finish(const Bench& bench) const;

 private:
  struct PassTasks {
    size_t operation, segment;             // operations of one pair, one operation of such segments
    std::vector<size_t> grid, squares;     // [queries][keys]; [square]
    size_t merged_pair, merged, unmerged;  // segments of one pair; many rows and few keys, merged and not
  };
  PassTasks add_tasks(simulate::Pass pass, Bench* bench) const;
  simulate::PassTimes finish(const PassTasks& tasks, simulate::Pass pass, const Bench& bench) const;

  const Workbench& workbench_;
  int64_t tile_;
  std::vector<int64_t> points_, squares_;
  PassTasks forward_, backward_;
};

class MemoryPart {
 public:
  MemoryPart(const Workbench& workbench, Bench* bench);
  void finish(const Bench& bench, simulate::Profile* profile) const;

 private:
  struct Moved {
    size_t task;
    double bytes;  // of a pair, read and written together
  };
  std::vector<Moved> moved_;
  size_t operations_, pairs_;  // as many pairs in as many operations, and in one
};

// Matrix products of a rank's tokens and a layer's weights: forward, and backward's two.
class ProductPart {
 public:
  ProductPart(const Workbench& workbench, c10::Device device, Bench* bench);
  void finish(const Bench& bench, simulate::Profile* profile) const;

 private:
  double flops_;
  size_t forward_, backward_;
};

// Exchanges between neighbours, all ranks at once: inside nodes and between them, waited for at once, and beside
// kernels.
class LinkPart {
 public:
  LinkPart(const Workbench& workbench, int32_t ranks_per_node, Bench* bench);
  void finish(const Bench& bench, simulate::Profile* profile) const;

 private:
  struct Size {
    double bytes;  // sent, and as many received
    size_t task;
  };
  struct Beside {
    double bytes, messages;  // sent and received together
    size_t task, kernels;    // the kernels with and without the exchange
  };
  struct Level {
    std::vector<Size> sizes;  // of one message
    size_t one, many;         // tasks: kLargeBytes in one message and in kMessages
  };
  std::vector<Level> levels_;
  std::vector<Beside> beside_;
};

}  // namespace evenspan::calibrate
