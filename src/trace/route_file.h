// Reads a record of routes (docs/routes.md), which is a safetensors file with these tensors. Tokens are ordered by
// sequence and then by position, each once.
//
//   sequences [N] I64, positions [N] I32, tokens [N] I32
//   steps [N] I64, owners [N] I32                which batch a token ran in, and which member ran it (core/batch.h)
//   experts [N, L, K] I32, weights [N, L, K] F32  as in core/route.h
//   scores [N, L, E] F32, inputs [N, L, D] F32    of the router, if they were recorded
//
// Shape letters: N tokens, L layers, K the most entries of a token, E scores of the router, D model width.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "core/route.h"
#include "weights/safetensors_header.h"

namespace foe {

// What a record says of where it comes from, in its metadata.
struct RouteOrigin {
  std::string model;         // Model::identity
  std::string plan;          // of the ranks
  int ranks = 1;             // how many there were at the start
  std::vector<int> experts;  // ids of experts that each layer has

  bool operator==(const RouteOrigin&) const = default;
};

class RouteFile {
 public:
  // `file` is the whole file, which must outlive this. Throws Error, beginning with `source`, for anything but a
  // record: tensors that are missing, or of another type or shape, tokens that are out of order, and metadata that does
  // not agree. What is recorded of tokens is checked by route().
  RouteFile(std::span<const std::byte> file, std::string source);

  const RouteForm& form() const { return form_; }
  const RouteOrigin& origin() const { return origin_; }
  std::int64_t tokens() const { return tokens_; }  // N
  std::vector<std::int64_t> sequences() const;     // ascending

  // Returns the route of a sequence. Throws Error if it is not here, if its positions are not 0, 1, ..., or if what it
  // has is not ascending experts of the model, each once, with weights that are finite and not negative.
  SequenceRoute route(std::int64_t sequence) const;
  // The same of the only sequence. Throws Error if there are several or none.
  SequenceRoute route() const;

 private:
  template <typename T>
  T at(std::span<const std::byte> tensor, std::int64_t i) const;
  std::span<const std::byte> tensor(const char* name, const char* type, std::vector<std::int64_t> shape) const;
  void read_metadata();
  void check_order() const;
  void check_entries(const Route& route, int position, int layer) const;

  std::span<const std::byte> file_;
  std::string source_;
  SafetensorsHeader header_;
  RouteOrigin origin_;
  RouteForm form_;
  std::int64_t tokens_ = 0;
  std::span<const std::byte> sequences_, positions_, ids_, experts_, weights_;
};

// Reads the route of a sequence from a file; without a number, that of the only one.
SequenceRoute load_route(const std::string& path, std::optional<std::int64_t> sequence);

}  // namespace foe
