// Cards of a file such as experiments/devices.yaml: one block per card, one `key: value` per line.
#pragma once

#include <c10/util/Exception.h>

#include <fstream>
#include <map>
#include <string>
#include <vector>

#include "settings.h"

namespace stand_in {

// Rates per second, times in seconds.
struct Card {
  std::string id;
  double half = 0, single = 0, twice = 0;  // operations of matrix products
  double memory = 0, host = 0;             // bytes
  double launch = 0, kernel = 0;           // least time of the host and of the card for an operation
};

using Block = std::map<std::string, double>;

inline Card card_of(const std::string& id, const Block& block, const char* single) {
  auto value = [&](const char* key) {
    auto found = block.find(key);
    TORCH_CHECK(found != block.end() && found->second > 0, "card `", id, "`: `", key, "` must be a number above 0");
    return found->second;
  };
  return {id,
          value("half-tflops") * 1e12,
          value(single) * 1e12,
          value("double-tflops") * 1e12,
          value("gbytes-per-second") * 1e9,
          value("host-gbytes-per-second") * 1e9,
          value("launch-us") * 1e-6,
          value("kernel-us") * 1e-6};
}

// Every card of STAND_IN_CARDS twice: as `id` without TF32 and as `id+tf32`. None where the variable is not set.
inline std::vector<Card> read_cards() {
  const std::string path = text_of("STAND_IN_CARDS");
  if (path.empty()) return {};
  std::ifstream file(path);
  TORCH_CHECK(file.good(), "STAND_IN_CARDS=`", path, "` cannot be read");
  std::vector<std::pair<std::string, Block>> blocks;
  for (std::string line; std::getline(file, line);) {
    line = line.substr(0, line.find('#'));
    const size_t start = line.find_first_not_of(' '), colon = line.find(':');
    if (start == std::string::npos || colon == std::string::npos) continue;
    const std::string key = line.substr(start, colon - start);
    if (start == 0)
      blocks.push_back({key, {}});
    else if (!blocks.empty())
      blocks.back().second[key] = std::atof(line.c_str() + colon + 1);
  }
  std::vector<Card> cards;
  for (const auto& [id, block] : blocks) {
    cards.push_back(card_of(id, block, "single-tflops"));
    cards.push_back(card_of(id + "+tf32", block, "tf32-tflops"));
  }
  return cards;
}

}  // namespace stand_in
