// The flags by which benchmarks take a workload, named as vLLM's.
#pragma once

#include <functional>
#include <string>

#include "workload.h"

namespace CLI {
class App;
}

namespace foe {

// A check for options: a number in [low, high]. CLI::Range lets NaN pass.
std::function<std::string(const std::string&)> number_in(double low, double high);

void add_workload_flags(CLI::App& command, WorkloadOptions& options);

// To standard error.
void print_notes(const Workload& workload);

}  // namespace foe
