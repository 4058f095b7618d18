// What a run did to its devices.
#pragma once

#include <atomic>
#include <map>
#include <mutex>
#include <string>

#include "settings.h"

namespace stand_in {

struct Counts {
  std::atomic<long> launches{0};                   // operations issued to a device
  std::atomic<long> syncs{0};                      // times the host waited for one
  std::atomic<long> up_calls{0}, up_bytes{0};      // host to device
  std::atomic<long> down_calls{0}, down_bytes{0};  // device to host
  std::atomic<long> across_bytes{0};               // between and within devices
  std::atomic<long> violations{0};                 // calls refused because of where their tensors are
  std::atomic<long> bytes[MAX_DEVICES] = {}, peak[MAX_DEVICES] = {};
  std::mutex lock;                          // for what follows
  std::map<std::string, long> by_operator;  // launches
  std::map<std::string, long> refused;      // violations by what was wrong
  std::map<std::string, long> computed;     // large operations that had to be computed for want of a shape rule
};

// Never destroyed: tensors are freed after static objects are.
inline Counts& counts() {
  static Counts* all = new Counts;
  return *all;
}

inline void count_launch(const std::string& name) {
  counts().launches++;
  std::lock_guard<std::mutex> guard(counts().lock);
  counts().by_operator[name]++;
}

}  // namespace stand_in
