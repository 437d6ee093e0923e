// How a rank waits for what MPI has begun.
#pragma once

#include <chrono>
#include <sched.h>
#include <thread>

#include <fmt/format.h>

#include "base/clock.h"
#include "comm/background.h"
#include "comm/rank_lost.h"

namespace foe {

// Says that an exchange has failed in this process (mpi_is_usable()).
void leave_requests();

// Calls ready() until it returns true. Spins a little, then yields, then sleeps for short times: a rank that waits for
// work must not take a core from a rank that has work. Throws RankLost after the timeout.
template <typename Ready>
void wait_for_mpi(int rank, double timeout_s, const char* what, Ready&& ready) {
  const auto start = Clock::now();
  const bool naps = in_background();
  try {
    for (int tries = 0; !ready(); ++tries) {
      if (tries < 100 && !naps) continue;
      const double waited = seconds_since(start);
      if (waited > timeout_s)
        throw RankLost(fmt::format("rank {}: {} did not end within {} s: another rank died, or its host is cut off",
                                   rank, what, timeout_s));
      if (waited < 0.05 && !naps)
        sched_yield();
      else
        std::this_thread::sleep_for(std::chrono::microseconds(waited < 1 ? 100 : 1000));
    }
  } catch (...) {
    leave_requests();
    throw;
  }
}

}  // namespace foe
