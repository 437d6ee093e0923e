// Measures what a machine can do with foe in a few minutes: its limits by number of threads, products, steps of a model
// with random weights, and whether a rank for each memory node (NUMA) is faster than one rank for all.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "bench/kernels.h"
#include "bench/shapes.h"

namespace foe {

struct MachineOptions {
  Shape shape;
  std::vector<WeightFormat> formats;
  double seconds = 0.5;  // of measurement for each product; steps get four times as long
  std::string how;       // the program, its version and flags, for the report
};

// What the system says of itself.
struct MachineFacts {
  std::string processor, kernel, huge_pages;
  std::string instruction_set;          // that foe's kernels use
  double memory_bytes = 0;              // of the machine
  std::vector<std::vector<int>> nodes;  // processors that this process may use, by memory node
};
MachineFacts machine_facts();

// What steps of the model's layers take, without embedding and token head, in tokens/s.
struct MachineSteps {
  int ranks, threads;  // threads of each rank
  bool bound;          // each rank runs on the processors of its memory node, or of its part of the only one
  WeightFormat format;
  double prefill_512 = 0, decode_1 = 0, decode_16 = 0;
};

struct MachineReport {
  std::string how;
  MachineFacts facts;
  std::vector<std::pair<int, MachineLimits>> limits;  // by number of threads
  std::vector<KernelPoint> kernels;                   // with all threads
  std::vector<MachineSteps> steps;
};

// Returns the numbers of threads that are measured: 1, 2, 4 and so on, and all.
std::vector<int> thread_counts(int processors);

// Returns how processors are shared by ranks: those of each memory node, or, if there is one node with at least two
// processors, its lower and upper half.
std::vector<std::vector<int>> processors_of_ranks(const std::vector<std::vector<int>>& nodes);

// Calls `progress` with what is measured next.
MachineReport measure_machine(const MachineOptions& options, const std::function<void(const std::string&)>& progress);

// Returns the report as Markdown.
std::string to_markdown(const MachineReport& report);

}  // namespace foe
