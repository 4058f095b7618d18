// What the environment says. Read once; see README.md for every name.
#pragma once

#include <algorithm>
#include <cstdlib>
#include <string>

namespace stand_in {

constexpr int MAX_DEVICES = 16;

// Text of a variable, empty where it is not set.
inline std::string text_of(const char* name) {
  const char* text = std::getenv(name);
  return text ? text : "";
}

inline double number_of(const char* name, double otherwise) {
  const std::string text = text_of(name);
  return text.empty() ? otherwise : std::atof(text.c_str());
}

// Devices that exist.
inline int devices() {
  static const int count = std::clamp(static_cast<int>(number_of("STAND_IN_DEVICES", 1)), 0, MAX_DEVICES);
  return count;
}

// Bytes that one device holds; 0 is no limit.
inline long capacity() {
  static const long bytes = static_cast<long>(number_of("STAND_IN_BYTES", 0));
  return bytes;
}

// Whether large operations are priced instead of computed.
inline bool shapes_only() {
  static const bool on = !text_of("STAND_IN_SHAPES").empty();
  return on;
}

// Tensors of at most so many elements are computed even then: ids, masks, lengths.
constexpr int64_t SMALL = 1 << 16;

}  // namespace stand_in
