// Measures what a simulated cluster has to know (simulate/cluster.h) of the machines that this job runs on.
#pragma once

#include <functional>
#include <string>

#include "bench/shapes.h"
#include "comm/communicator.h"
#include "kernels/formats/kv_format.h"
#include "kernels/formats/weight_format.h"
#include "simulate/cluster.h"

namespace foe {

struct CalibrateOptions {
  Shape shape;  // of which products and attention are measured
  WeightFormat dtype = WeightFormat::kBF16;
  KvType kv_type = KvType::kBF16;
  AttentionType attention = AttentionType::kF32;
  int threads = 1;       // of each rank
  double seconds = 0.5;  // for each result
};

// Collective; ranks are all on one node, or each on a node of its own. All ranks measure at the same time, so that what
// they share of a machine shows; rank 0's results count. Products, attention, reading and collectives are measured by
// themselves. What remains of two forward passes of two layers on one rank, of many prompts and of one token, is taken
// for norms and copies, and for the time of a block besides. What only a server shows (Cluster::request_s, token_s,
// row_s) stays 0. Calls `progress` on rank 0 with what comes next.
Cluster calibrate(const CalibrateOptions& options, Communicator& comm,
                  const std::function<void(const std::string&)>& progress);

}  // namespace foe
