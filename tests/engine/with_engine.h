// Runs engines whose ranks are threads of the test.
#pragma once

#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "engine/engine.h"
#include "weights/config_json.h"

namespace foe {

// Runs a thread for each rank in `nodes`: lead(engine) on rank 0, and Engine::follow() on the others.
inline void with_engine(const std::string& path, const PlanChoice& plan, const std::vector<int>& nodes,
                        EngineOptions options, const std::function<void(Engine&)>& lead) {
  auto comms = make_local_comms(nodes);
  std::vector<std::thread> threads;
  for (std::size_t r = 0; r < nodes.size(); ++r)
    threads.emplace_back([&, r] {
      Engine engine(load_model(path, plan, *comms[r]), *comms[r], options);
      if (r != 0) return engine.follow();
      lead(engine);
      engine.stop();
    });
  for (std::thread& t : threads) t.join();
}

// The same with all ranks on one node.
inline void with_engine(const std::string& path, const PlanChoice& plan, int ranks, EngineOptions options,
                        const std::function<void(Engine&)>& lead) {
  with_engine(path, plan, std::vector<int>(ranks), options, lead);
}

// The same with default_plan() of the model.
inline void with_engine(const std::string& path, int ranks, EngineOptions options,
                        const std::function<void(Engine&)>& lead) {
  with_engine(path, default_plan(load_model_config(path)), ranks, options, lead);
}

}  // namespace foe
