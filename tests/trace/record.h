// A small record of routes, of which a test can change any part before it becomes a file.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "trace/route_writer.h"
#include "weights/temp_folder.h"
#include "weights/tensor_writer.h"

namespace foe {

// Two sequences of three and two tokens, through two layers of six experts each, of which a token has at most three.
struct Record {
  std::vector<std::int64_t> sequences = {3, 3, 3, 8, 8}, steps = {0, 0, 1, 0, 2};
  std::vector<std::int32_t> positions = {0, 1, 2, 0, 1}, tokens = {5, 6, 7, 5, 9}, owners = {0, 0, 0, 1, 1};
  std::vector<std::int32_t> experts = {0, 2, 5,  -2, -2, -2,   // sequence 3, position 0: not in the last layer
                                       1, 3, -1, 0,  1,  2,    // 1
                                       4, 5, -1, -1, -1, -1,   // 2: no expert in the last layer
                                       0, 1, 2,  3,  4,  5,    // sequence 8, position 0
                                       2, 3, 4,  0,  -1, -1};  // 1
  std::vector<float> weights = {0.5f, 0.25f, 0.125f, 0, 0, 0, 1, 0, 0, 0.1f, 0.2f, 0.3f, 0.7f, 0.3f, 0,
                                0,    0,     0,      1, 2, 3, 4, 5, 6, 7,    8,    9,    0.5f, 0,    0};
  std::map<std::string, std::string> metadata = {{"foe_routes", "1"}, {"model", "0123456789abcdef"},
                                                 {"plan", "ep"},      {"ranks", "2"},
                                                 {"layers", "2"},     {"entries", "3"},
                                                 {"experts", "6,6"},  {"complete", "yes"}};
  // What tensors are called, and their types and shapes, where they are not what they should be.
  std::map<std::string, std::string> names = {}, types = {};
  std::map<std::string, std::vector<std::int64_t>> shapes = {};

  void write(const std::string& path) const {
    std::vector<TensorSource> sources;
    const auto add = [&](const std::string& name, const std::string& type, std::vector<std::int64_t> shape,
                         const auto& values) {
      if (names.contains(name) && names.at(name).empty()) return;  // left out
      sources.push_back(
          byte_source(names.contains(name) ? names.at(name) : name, types.contains(name) ? types.at(name) : type,
                      shapes.contains(name) ? shapes.at(name) : std::move(shape), std::as_bytes(std::span(values))));
    };
    const auto N = static_cast<std::int64_t>(sequences.size());
    const std::int64_t K = N == 0 ? 3 : static_cast<std::int64_t>(experts.size()) / N / 2;
    add("sequences", "I64", {N}, sequences);
    add("positions", "I32", {N}, positions);
    add("tokens", "I32", {N}, tokens);
    add("steps", "I64", {N}, steps);
    add("owners", "I32", {N}, owners);
    add("experts", "I32", {N, 2, K}, experts);
    add("weights", "F32", {N, 2, K}, weights);
    write_tensor_file(path, std::move(sources), metadata);
  }

  std::string bytes() const {
    const TempFolder folder;
    write(folder / "routes.safetensors");
    return folder.read("routes.safetensors");
  }
};

}  // namespace foe
