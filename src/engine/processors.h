// Which processors a rank's threads run on. Memory belongs to the NUMA node of the thread that touches it first: a rank
// that stays on one node has its KV cache and what it packs there. One rank for each node is the best use of a machine
// with several.
#pragma once

#include <vector>

#include "comm/communicator.h"

namespace foe {

// By NUMA node, of which there is one at least; none is in two. In each, one of every core before their second
// hyperthreads.
using Processors = std::vector<std::vector<int>>;

// Those that this process may run on, as hwloc sees them: with HWLOC_SYNTHETIC in the environment, those of the machine
// that it describes.
Processors usable_processors();

// A rank's part of its machine.
struct LocalShare {
  int rank = 0, ranks = 1;  // among the ranks of the machine that may run on the same processors
  int threads = 1;          // processors that it may run on, each divided by the ranks that may
};
// `allowed`: the processors of each rank of the machine, ascending.
LocalShare share_of(const std::vector<std::vector<int>>& allowed, int rank);
// Collective. Launchers bind ranks or do not, and say how many there are each in their own way: the ranks ask each
// other. The exchange does not count.
LocalShare local_share(Communicator& comm);

// Those of the rank'th of so many ranks on one machine: its share of the nodes, or the one that it has with others.
std::vector<int> processors_of(const Processors& usable, int rank, int ranks);

// For each of its threads one of these: where ranks have a node together, each begins after the threads of the last.
std::vector<int> processors_to_pin(const Processors& usable, int rank, int ranks, int threads);

}  // namespace foe
