// A point in a device's stream that streams of other threads can wait for.
#pragma once

#include <c10/core/Device.h>
#include <c10/core/Event.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include <optional>

namespace evenspan::comm {

// Starts without a mark. On the CPU, where work is done when its call returns, there is never one. Not thread-safe.
class StreamMark {
 public:
  // Marks what the calling thread's current stream of `device` has been given so far.
  void record(c10::Device device) {
    if (device.is_cpu()) return;
    event_.emplace(device.type());
    event_->record(current_stream(device));
  }

  // Lets the calling thread's current stream of `device` wait for the mark. Devices of other types wait by themselves:
  // copies between types return when they are done.
  void block(c10::Device device) const {
    if (event_ && event_->device_type() == device.type()) event_->block(current_stream(device));
  }

 private:
  static c10::Stream current_stream(c10::Device device) {
    return c10::impl::VirtualGuardImpl(device.type()).getStream(device);
  }

  std::optional<c10::Event> event_;
};

}  // namespace evenspan::comm
