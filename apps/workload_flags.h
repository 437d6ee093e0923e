// The flags that describe the workload of a benchmark, with the names of vLLM's.
#pragma once

#include "flags.h"
#include "load/workload.h"

namespace foe {

void add_workload_flags(Command command, WorkloadOptions& options);

// Prints the notes of a workload on standard error.
void print_notes(const Workload& workload);

}  // namespace foe
