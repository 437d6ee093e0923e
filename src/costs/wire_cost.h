// How much a decode step sends, computed from the placement by formulas.
#pragma once

#include <cstdint>
#include <vector>

#include "core/model_config.h"
#include "costs/sum_traffic.h"
#include "kernels/formats/kv_format.h"
#include "placement/expert_nodes.h"

namespace foe {

// What one rank sends to others, in the encoding of the wire, in a step that decodes `sequences` sequences; where ranks
// share groups (as in plan ep), so many for each of them. Counted like the fields of CommCounter.
struct WireCost {
  int sum_calls = 0;
  SumTraffic sums;
  std::uint64_t gather_bytes = 0;  // to rank 0: logits or candidates of the rank's part of the vocabulary
  // Where ranks are stages (plan pp): calls of send() and receive(); and what is sent, rows to the next stage or, in
  // place of a gather, logits or candidates to rank 0.
  int send_calls = 0;
  SumTraffic sends;
  // The following are for ranks that share a group, in expectation if all selections of experts are equally likely.
  int all_to_all_calls = 0;
  double dispatch_bytes = 0;    // rows of its own tokens, to other members' experts
  double return_bytes = 0;      // partial sums for other members' tokens
  std::uint64_t key_bytes = 0;  // keys and values of its own tokens, to the other members, if these split sequences
};

// `nodes` has the node of each rank (Communicator::nodes). `candidates` is how many candidates each row wants
// (Batch::candidates): 1 for greedy decoding, and 0 if all logits are wanted.
WireCost decode_wire_cost(const ModelConfig& config, const Placement& placement, const std::vector<int>& nodes,
                          int rank, const ExchangeOptions& options = {}, int sequences = 1, int candidates = 1,
                          KvType kv_type = KvType::kBF16);

// The ranks that add together in the sums of `rank`, in the order of their terms, their nodes, and which of them it is.
struct SumRanks {
  std::vector<int> ranks, nodes;
  int place = 0;
};
SumRanks ranks_of_sums(const Placement& placement, const std::vector<int>& nodes, int rank);

// Returns the bytes in which a rank sends rank 0 what is wanted of so many rows of its `part` of the vocabulary: so
// many candidates of each or, if that is 0, all logits.
std::uint64_t gathered_bytes(Wire wire, std::size_t rows, int part, int candidates);

// Returns the shape of the KV blocks of a rank.
KvShape kv_shape(const ModelConfig& config, const Share& share, KvType type);

}  // namespace foe
