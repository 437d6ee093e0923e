// Which processors a rank's threads run on. Memory belongs to the NUMA node of the thread that touches it first, so a
// rank that stays on one NUMA node has its KV cache and its packed weights there. A machine with several NUMA nodes is
// used best with one rank on each. ("Node" means NUMA node in this file.)
#pragma once

#include <vector>

#include "comm/communicator.h"

namespace foe {

// The numbers of processors, by node. There is at least one node, and no processor is in two. In a node the first
// hyperthreads of all cores come before the second ones.
using Processors = std::vector<std::vector<int>>;

// Returns the processors that this process may run on, as hwloc reports them. If HWLOC_SYNTHETIC is in the environment,
// they are those of the machine that it describes. Throws Error if hwloc fails.
Processors usable_processors();

// The part of its machine that a rank has.
struct LocalShare {
  int rank = 0, ranks = 1;  // its number among the ranks that may run on the same processors, and their number
  int threads = 1;          // how many threads it should have: processors are shared evenly by the ranks on them
};
// Returns the part of rank `rank`. `allowed` has the processors that each rank of the machine may run on, ascending.
LocalShare share_of(const std::vector<std::vector<int>>& allowed, int rank);
// Collective. Returns this rank's part of its machine. Launchers differ in whether they bind ranks and in how they say
// how many there are, so the ranks ask each other. The exchange is not counted.
LocalShare local_share(Communicator& comm);

// Returns the processors of rank `rank` of `ranks` on one machine: those of its share of the nodes, or of the one node
// that it shares with others.
std::vector<int> processors_of(const Processors& usable, int rank, int ranks);

// Returns a processor for each thread of that rank. If ranks share a node, the threads of each rank come after those of
// the rank before it.
std::vector<int> processors_to_pin(const Processors& usable, int rank, int ranks, int threads);

}  // namespace foe
