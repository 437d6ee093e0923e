// Serves requests on a simulated cluster: they come at given times, the scheduler plans steps as in an engine
// (engine/engine.h), and a StepSimulator says how long they take.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "core/request.h"
#include "load/load_generator.h"
#include "sched/scheduler.h"
#include "simulate/step_simulator.h"

namespace foe {

struct ServingOptions {
  SchedulerLimits limits;        // scheduler_limits()
  SamplingParams sampling = {};  // of all requests
  int max_concurrency = 0;       // LoadOptions::max_concurrency
};

struct SimulatedServing {
  LoadRun run;  // what a load generator would have noted; texts are empty, and cpu_seconds is 0
  SchedulerStats scheduler;
  std::int64_t steps = 0, tokens = 0;  // that ran
};

// Serves all requests, which are the workload's `prompts` as ids, each sent at its time and answered to its full
// length. Output tokens are numbers without a meaning, of which no two requests have the same. `progress` is called now
// and then with the number of requests that have ended. What can never run fails, with the scheduler's message.
SimulatedServing simulate_serving(StepSimulator& steps, const std::vector<WorkloadPrompt>& prompts,
                                  const std::vector<double>& times, const ServingOptions& options,
                                  const std::function<void(std::size_t)>& progress = {});

}  // namespace foe
