#include <algorithm>

#include "calibrate/parts.h"
#include "evenspan/calibrate/fit.h"

namespace evenspan::calibrate {
namespace {

using plan::TensorName;

// Bytes that a rank sends in an exchange: the smallest tells the latency, the largest the bandwidth.
constexpr int64_t kExchangedBytes[] = {1 << 10, 1 << 14, 1 << 18, 1 << 20, 1 << 22};
constexpr int64_t kLargeBytes = 1 << 20;  // from here on kernels are run beside the exchange
constexpr int64_t kMessages = 32;
constexpr int64_t kKernelRows = 256;
constexpr int64_t kSamples = 8;  // what an exchange takes from kernels is a tenth of their time, about as much as noise

struct Peers {
  Rank to, from;
};

// Neighbours in the node, or in the nodes beside it.
Peers neighbours(const comm::Communicator& communicator, int32_t group, int32_t distance) {
  const int32_t rank = communicator.rank(), first = rank / group * group, place = rank - first;
  return {Rank(first + (place + distance) % group), Rank(first + (place + group - distance) % group)};
}

plan::Exchange exchange(const Workbench& workbench, const Peers& peers, int64_t bytes, int64_t messages) {
  const int64_t row_bytes = plan::payload_bytes(workbench.block(TensorName::query, 0, 1), workbench.shape());
  const int64_t rows = std::clamp<int64_t>(bytes / messages / row_bytes, 1, workbench.num_rows() / messages);
  plan::Exchange exchange;
  for (int64_t i = 0; i < messages; ++i) {
    exchange.items.push_back({plan::Direction::send, peers.to, {workbench.block(TensorName::query, i * rows, rows)}});
    exchange.items.push_back({plan::Direction::receive,
                              peers.from,
                              {workbench.arena_block(TensorName::query, i * rows, rows, plan::Precision::input)}});
  }
  return exchange;
}

double sent(const plan::Exchange& exchange, const plan::AttentionShape& shape) {
  double bytes = 0;
  for (const plan::Message& message : exchange.items) {
    if (message.direction != plan::Direction::send) continue;
    bytes += static_cast<double>(plan::payload_bytes(message.blocks[0], shape));
  }
  return bytes;
}

}  // namespace

LinkPart::LinkPart(const Workbench& workbench, int32_t ranks_per_node, Bench* bench) {
  const comm::Communicator& communicator = workbench.communicator();
  // Warm: a program has just written what it sends.
  const auto add = [&](plan::Phase program, double times) {
    return bench->add({[&workbench, program = std::move(program)] { workbench.run(program); }, times, true, kSamples});
  };
  std::vector<Peers> levels;
  if (ranks_per_node > 1) levels.push_back(neighbours(communicator, ranks_per_node, 1));
  if (ranks_per_node < communicator.size()) {
    levels.push_back(neighbours(communicator, communicator.size(), ranks_per_node));
  }
  for (const Peers& peers : levels) {
    Level& level = levels_.emplace_back();
    for (const int64_t bytes : kExchangedBytes) {
      const auto repeats = static_cast<int32_t>(std::clamp<int64_t>(kLargeBytes / bytes, 1, 32));
      plan::Phase program;
      for (plan::Event event = 0; event < repeats; ++event) {
        program.operations.push_back({{}, event, exchange(workbench, peers, bytes, 1)});
        if (event > 0) program.operations.back().waits = {event - 1};
      }
      const double sent_bytes = sent(std::get<plan::Exchange>(program.operations[0].body), workbench.shape());
      if (!level.sizes.empty() && level.sizes.back().bytes >= sent_bytes) continue;
      level.sizes.push_back({sent_bytes, add(std::move(program), repeats)});
    }
    const auto alone = [&](int64_t messages) {
      plan::Phase program;
      program.operations.push_back({{}, 0, exchange(workbench, peers, kLargeBytes, messages)});
      return add(std::move(program), 1);
    };
    level.one = alone(1);
    level.many = alone(kMessages);
  }
  for (const auto& [bytes, messages] :
       {std::pair{kLargeBytes, int64_t{1}}, {4 * kLargeBytes, int64_t{1}}, {kLargeBytes, kMessages}}) {
    const plan::Exchange moved = exchange(workbench, levels[0], bytes, messages);
    plan::Phase kernels;
    for (int64_t i = 0; i < 4 * bytes / kLargeBytes; ++i) {
      kernels.operations.push_back(
          workbench.attend(plan::TileKind::full, kKernelRows, kKernelRows, 1, Result::written));
    }
    plan::Phase beside = kernels;
    beside.operations.insert(beside.operations.begin(), plan::Operation{{}, 0, moved});
    const double both_ways = 2 * sent(moved, workbench.shape());
    beside_.push_back(
        {both_ways, 2.0 * static_cast<double>(messages), add(std::move(beside), 1), add(std::move(kernels), 1)});
  }
}

void LinkPart::finish(const Bench& bench, simulate::Profile* profile) const {
  for (const Level& level : levels_) {
    std::vector<double> bytes, seconds;
    for (const Size& size : level.sizes) {
      bytes.push_back(size.bytes);
      seconds.push_back(bench.seconds(size.task));
    }
    const Line line = fit_line(bytes, seconds);
    const double more = bench.seconds_above(level.many, level.one);
    profile->links.push_back({line.fixed_seconds, line.per_second, 0, 0, std::max(0.0, more / (kMessages - 1)), 0, 0});
  }
  // What kernels lose to the exchange: by bytes from the two sizes of one message, the rest by messages. Measured at
  // the innermost level, and taken for all.
  const auto lost = [&](const Beside& one) { return bench.seconds_above(one.task, one.kernels); };
  // A workbench of few rows sends the same in both sizes, which then tell nothing of bytes.
  const auto more_for = [](double seconds, double units) { return units > 0 ? std::max(0.0, seconds / units) : 0.0; };
  const double of_byte = more_for(lost(beside_[1]) - lost(beside_[0]), beside_[1].bytes - beside_[0].bytes);
  const double of_message = more_for(lost(beside_[2]) - lost(beside_[0]), beside_[2].messages - beside_[0].messages);
  for (simulate::Link& link : profile->links) {
    link.compute_byte_seconds = of_byte;
    link.compute_message_seconds = of_message;
  }
}

}  // namespace evenspan::calibrate
