// Time by a roofline model: the host issues operations one after another, a card works them off in the same order. An operation takes as
// long as its arithmetic or its bytes, whichever is longer, and at least a kernel's shortest time. One run is timed for every card at once.
#pragma once

#include <c10/core/ScalarType.h>

#include <algorithm>
#include <map>
#include <mutex>
#include <string>
#include <vector>

#include "cards.h"

namespace stand_in {

// One card's clock, in seconds since the process began.
struct Clock {
  Card card;
  double host = 0, device = 0;  // where both are
  double busy = 0;              // of the device's time, what it worked
  std::map<std::string, double> by_operator;

  double rate(c10::ScalarType type) const {
    const bool half = type == c10::kBFloat16 || type == c10::kHalf;
    return half ? card.half : type == c10::kDouble ? card.twice : card.single;
  }
};

class Clocks {
 public:
  Clocks() {
    for (auto& card : read_cards()) clocks_.push_back({card, 0, 0, 0, {}});
  }

  void launch(const std::string& name, double flops, double bytes, c10::ScalarType type) {
    std::lock_guard<std::mutex> guard(lock_);
    flops_ += flops;
    bytes_ += bytes;
    for (auto& c : clocks_) {
      const double seconds = std::max({c.card.kernel, flops / c.rate(type), bytes / c.card.memory});
      c.host += c.card.launch;
      c.device = std::max(c.device, c.host) + seconds;
      c.busy += seconds;
      c.by_operator[name] += seconds;
    }
  }

  // The host waits until the device is done.
  void wait() {
    std::lock_guard<std::mutex> guard(lock_);
    for (auto& c : clocks_) c.host = std::max(c.host, c.device) + WAKE;
  }

  // A copy between host and device. The host of a copy down waits for the device first; that of a copy up stages the bytes itself, unless
  // they lie in pinned memory and it need not wait.
  void transfer(double bytes, bool down, bool asynchronous) {
    std::lock_guard<std::mutex> guard(lock_);
    for (auto& c : clocks_) {
      const double seconds = bytes / c.card.host;
      c.host += WAKE;
      if (asynchronous)
        c.device = std::max(c.device, c.host) + seconds;
      else if (down)
        c.host = std::max(c.host, c.device) + seconds;
      else
        c.device = std::max(c.device, c.host += seconds);
    }
  }

  double flops() const { return flops_; }
  double bytes() const { return bytes_; }
  const std::vector<Clock>& all() const { return clocks_; }

 private:
  static constexpr double WAKE = 1e-5;
  std::vector<Clock> clocks_;
  double flops_ = 0, bytes_ = 0;
  std::mutex lock_;
};

inline Clocks& clocks() {
  static Clocks* all = new Clocks;
  return *all;
}

}  // namespace stand_in
