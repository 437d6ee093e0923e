// The flags by which benchmarks take a workload, named as vLLM's.
#pragma once

#include "load/workload.h"

namespace CLI {
class App;
}

namespace foe {

void add_workload_flags(CLI::App& command, WorkloadOptions& options);

// To standard error.
void print_notes(const Workload& workload);

}  // namespace foe
