// The golden tokenizers of tests/golden/tokenizer (tools/make_tokenizer_goldens.py).
#pragma once

#include <fstream>
#include <string>

#include <nlohmann/json.hpp>

namespace foe {

inline std::string golden_path(const std::string& name) {
  return std::string(FOE_SOURCE_DIR) + "/tests/golden/tokenizer/" + name;
}

inline nlohmann::json read_golden(const std::string& name) {
  std::ifstream in(golden_path(name));
  return nlohmann::json::parse(in);
}

}  // namespace foe
