// Clusters for tests of the simulator.
#pragma once

#include <string>

#include <fmt/core.h>

#include "simulate/cluster.h"

namespace foe {

// Round numbers: 1 GB/s everywhere, 1 GFLOP/s, and no times besides.
inline std::string round_cluster(int devices, int per_node) {
  return fmt::format(
      "devices = {}\ndevices_per_node = {}\n[device]\nmemory_gb_per_s = 1\nprojections_gflops = 1\nrouter_gflops = 1\n"
      "experts_gflops = 1\nhead_gflops = 1\nattention_gflops = 1\nactivations_gfloats_per_s = 1\n[links.node]\n"
      "gbit_per_s = 8\n[links.network]\ngbit_per_s = 0.8\n",
      devices, per_node);
}

}  // namespace foe
