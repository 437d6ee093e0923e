#include "engine/processors.h"

#include <algorithm>
#include <hwloc.h>
#include <memory>
#include <sched.h>
#include <span>

#include "base/error.h"

namespace foe {
namespace {

struct Destroy {
  void operator()(hwloc_topology* topology) const { hwloc_topology_destroy(topology); }
};
using Topology = std::unique_ptr<hwloc_topology, Destroy>;

Topology load_topology() {
  hwloc_topology_t topology = nullptr;
  if (hwloc_topology_init(&topology) == 0) {
    Topology owner(topology);
    hwloc_topology_set_flags(topology, HWLOC_TOPOLOGY_FLAG_RESTRICT_TO_CPUBINDING);
    if (hwloc_topology_load(topology) == 0) return owner;
  }
  fail("hwloc: expected a list of this machine's processors, got an error");
}

std::vector<int> in_order(hwloc_topology_t topology, hwloc_const_cpuset_t cpus) {
  std::vector<hwloc_obj_t> found;
  for (hwloc_obj_t processor = nullptr;
       (processor = hwloc_get_next_obj_inside_cpuset_by_type(topology, cpus, HWLOC_OBJ_PU, processor));)
    found.push_back(processor);
  std::ranges::stable_sort(found, {}, &hwloc_obj::sibling_rank);  // the number of the hyperthread within its core
  std::vector<int> processors;
  for (const hwloc_obj_t processor : found) processors.push_back(static_cast<int>(processor->os_index));
  return processors;
}

int node_of(const Processors& usable, int rank, int ranks) {
  return static_cast<int>(usable.size()) * rank / ranks;
}

}  // namespace

Processors usable_processors() {
  const Topology topology = load_topology();
  // hwloc reports memory of another kind (high-bandwidth memory, or memory behind a bus) as a further node of the same
  // processors. Of nodes that share processors the one with the fewest is kept, because it is the closest.
  std::vector<hwloc_obj_t> nodes;
  for (hwloc_obj_t node = nullptr; (node = hwloc_get_next_obj_by_type(topology.get(), HWLOC_OBJ_NUMANODE, node));)
    if (!hwloc_bitmap_iszero(node->cpuset)) nodes.push_back(node);
  std::ranges::stable_sort(nodes, {}, [](hwloc_obj_t node) { return hwloc_bitmap_weight(node->cpuset); });
  std::vector<hwloc_obj_t> kept;
  for (const hwloc_obj_t node : nodes)
    if (std::ranges::none_of(kept, [&](hwloc_obj_t k) { return hwloc_bitmap_intersects(k->cpuset, node->cpuset); }))
      kept.push_back(node);
  std::ranges::sort(kept, {}, &hwloc_obj::logical_index);
  Processors usable;
  for (const hwloc_obj_t node : kept) usable.push_back(in_order(topology.get(), node->cpuset));
  return usable;
}

LocalShare share_of(const std::vector<std::vector<int>>& allowed, int rank) {
  const std::vector<int>& own = allowed[rank];
  LocalShare share{0, 0, 1};
  for (int r = 0; r < static_cast<int>(allowed.size()); ++r) {
    if (allowed[r] != own) continue;
    share.rank += r < rank;
    ++share.ranks;
  }
  double processors = 0;
  for (const int processor : own)
    processors += 1.0 / static_cast<double>(std::ranges::count_if(
                            allowed, [=](const auto& set) { return std::ranges::binary_search(set, processor); }));
  share.threads = std::max(1, static_cast<int>(processors + 1e-6));
  return share;
}

LocalShare local_share(Communicator& comm) {
  const CommCounters before = comm.counters();
  cpu_set_t mine;
  CPU_ZERO(&mine);
  sched_getaffinity(0, sizeof mine, &mine);
  const auto ranks = static_cast<std::size_t>(comm.size());
  const std::vector<cpu_set_t> send(ranks, mine);
  std::vector<cpu_set_t> all(ranks);
  const std::vector<std::size_t> bytes(ranks, sizeof mine);
  std::vector<std::size_t> received(ranks);
  comm.all_to_all(std::as_bytes(std::span(send)), bytes, std::as_writable_bytes(std::span(all)), received);
  comm.restore_counters(before);
  std::vector<std::vector<int>> allowed;
  int own = 0;
  for (int r = 0; r < comm.size(); ++r) {
    if (comm.nodes()[r] != comm.nodes()[comm.rank()]) continue;
    if (r == comm.rank()) own = static_cast<int>(allowed.size());
    std::vector<int>& set = allowed.emplace_back();
    for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu)
      if (CPU_ISSET(cpu, &all[r])) set.push_back(cpu);
  }
  return share_of(allowed, own);
}

std::vector<int> processors_of(const Processors& usable, int rank, int ranks) {
  const int begin = node_of(usable, rank, ranks);
  const int end = std::max(begin + 1, node_of(usable, rank + 1, ranks));
  std::vector<int> processors;
  for (int node = begin; node < end; ++node)
    processors.insert(processors.end(), usable[node].begin(), usable[node].end());
  return processors;
}

std::vector<int> processors_to_pin(const Processors& usable, int rank, int ranks, int threads) {
  const std::vector<int> own = processors_of(usable, rank, ranks);
  int before = 0;  // how many ranks before this one are on the same node
  while (before < rank && node_of(usable, rank - before - 1, ranks) == node_of(usable, rank, ranks)) ++before;
  std::vector<int> pinned;
  for (int thread = 0; thread < threads; ++thread) pinned.push_back(own[(before * threads + thread) % own.size()]);
  return pinned;
}

}  // namespace foe
