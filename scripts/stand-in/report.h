// One JSON line per process at its end: what was counted, and every card's clock.
#pragma once

#include <unistd.h>

#include <fstream>
#include <sstream>

#include "clock.h"
#include "counts.h"

namespace stand_in {

inline std::string quoted(const std::string& text) {
  std::string out = "\"";
  for (char c : text) {
    if (c == '"' || c == '\\') out += '\\';
    out += c;
  }
  return out + '"';
}

template <class Value>
std::string object(const std::map<std::string, Value>& map) {
  std::ostringstream out;
  const char* between = "{";
  for (const auto& [key, value] : map) {
    out << between << quoted(key) << ": " << value;
    between = ", ";
  }
  return map.empty() ? "{}" : out.str() + "}";
}

inline std::string of_clock(const Clock& clock) {
  std::ostringstream out;
  out << "{\"seconds\": " << std::max(clock.host, clock.device) << ", \"host\": " << clock.host << ", \"busy\": " << clock.busy
      << ", \"by_operator\": " << object(clock.by_operator) << "}";
  return out.str();
}

inline void report() {
  const std::string path = text_of("STAND_IN_REPORT");
  if (path.empty()) return;
  auto& c = counts();
  std::ostringstream line, peaks;
  for (int d = 0; d < devices(); d++) peaks << (d ? ", " : "") << c.peak[d].load();
  std::map<std::string, std::string> cards;
  for (const auto& clock : clocks().all()) cards[clock.card.id] = of_clock(clock);
  line << "{\"pid\": " << getpid() << ", \"launches\": " << c.launches << ", \"syncs\": " << c.syncs << ", \"up_calls\": " << c.up_calls
       << ", \"up_bytes\": " << c.up_bytes << ", \"down_calls\": " << c.down_calls << ", \"down_bytes\": " << c.down_bytes
       << ", \"across_bytes\": " << c.across_bytes << ", \"peak_bytes\": [" << peaks.str() << "], \"violations\": " << c.violations
       << ", \"refused\": " << object(c.refused) << ", \"computed\": " << object(c.computed)
       << ", \"by_operator\": " << object(c.by_operator) << ", \"tflop\": " << clocks().flops() / 1e12
       << ", \"gbytes\": " << clocks().bytes() / 1e9 << ", \"cards\": " << object(cards) << "}\n";
  std::ofstream(path, std::ios::app) << line.str();  // one write: processes append to the same file
}

}  // namespace stand_in
