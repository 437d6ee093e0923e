// The flags that describe the workload of a benchmark, with the names of vLLM's.
#pragma once

#include "load/workload.h"

namespace CLI {
class App;
}

namespace foe {

void add_workload_flags(CLI::App& command, WorkloadOptions& options);

// Prints the notes of a workload on standard error.
void print_notes(const Workload& workload);

}  // namespace foe
