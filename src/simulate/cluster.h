// What a simulated cluster can do: how fast its devices compute and read memory, and how fast its links are. It is read
// from a TOML file (docs/simulate.md). Each rank has a device of its own, and all devices are alike.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace foe {

// A speed by the number of rows, between two given numbers interpolated over the logarithm of the rows, and beyond them
// constant.
struct SpeedByRows {
  std::vector<double> rows;  // ascending
  std::vector<double> per_s;

  double at(double n) const;
};

struct DeviceSpeed {
  double bytes_per_s = 0;  // read from memory
  // Operations per second, a multiply-add being 2, in products of so many rows with one matrix.
  SpeedByRows projections, router, experts, head;
  SpeedByRows attention;    // of so many queries of a sequence with its keys and values
  double floats_per_s = 0;  // of activations in norms, sums and copies; each float is written once
  double block_s = 0;       // each block of a layer takes so long besides, and the token head
};

struct LinkSpeed {
  double latency_s = 0;        // from one rank to another
  double message_s = 0;        // a rank's time for each message that it sends
  double bytes_per_s = 0;      // in each direction, of a rank or, if it is shared, of all ranks of a node together
  double sum_bytes_per_s = 0;  // the same in sums, which also add what has come, or read it where it is
  bool shared = false;
};

enum class SumAlgorithm {
  kDirect,  // as foe's backends add: in one exchange, or in slices in two, and over nodes in two levels
  kRing,    // 2 (G - 1) exchanges of a G-th of the vector
};

struct Cluster {
  std::string name;
  int devices = 0;  // the most ranks that it has room for
  int per_node = 0;
  DeviceSpeed device;
  LinkSpeed node, network;  // between ranks of one node, and of two
  SumAlgorithm sum_algorithm = SumAlgorithm::kDirect;
  double sum_s = 0, all_to_all_s = 0, message_s = 0, broadcast_s = 0, gather_s = 0;  // each call takes so long besides
  // Of rank 0: to plan a step, and to choose the token of a row.
  double step_s = 0, row_s = 0;
  // From a request's arrival until rank 0 can schedule it, and from a chosen token until its client has it.
  double request_s = 0, token_s = 0;
};

// The most devices that are simulated.
inline constexpr int kMostDevices = 4096;

// Both throw Error naming the file, the key, what was expected and what was found. Unknown keys are errors.
Cluster parse_cluster(std::string_view text, const std::string& source);
Cluster load_cluster(const std::string& path);
// Returns the text of such a file.
std::string to_toml(const Cluster& cluster);

// Returns the node of each of so many ranks on so many nodes; 0: on as few as hold them. Throws Error if the cluster is
// too small.
std::vector<int> nodes_of_ranks(const Cluster& cluster, int ranks, int nodes);

}  // namespace foe
