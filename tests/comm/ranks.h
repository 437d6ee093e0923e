// Runs ranks as threads of one process.
#pragma once

#include <exception>
#include <functional>
#include <memory>
#include <thread>
#include <vector>

#include <gtest/gtest.h>

#include "comm/communicator.h"

namespace foe {

constexpr double kTimeout = 60;  // seconds; longer than any machine needs: a wait that ends by it is a failure

// Calls body(communicator) on a thread for each rank. A rank's communicator is destroyed when its body ends. Rank r
// pretends to be on nodes[r].
inline void run_ranks(const std::vector<int>& nodes, double timeout_seconds,
                      const std::function<void(Communicator&)>& body) {
  std::vector<std::thread> threads;
  for (auto& comm : make_local_comms(nodes, timeout_seconds))
    threads.emplace_back([&body, comm = std::move(comm)]() mutable {
      try {
        const std::unique_ptr<Communicator> own = std::move(comm);
        body(*own);
      } catch (const std::exception& e) {
        ADD_FAILURE() << e.what();
      }
    });
  for (std::thread& thread : threads) thread.join();
}

inline void run_ranks(int size, double timeout_seconds, const std::function<void(Communicator&)>& body) {
  run_ranks(std::vector<int>(size), timeout_seconds, body);
}

}  // namespace foe
