// Long commands end in order when a signal asks them to.
#pragma once

#include <atomic>
#include <string>

namespace foe {

// Whether a signal has asked to stop, since stop_at_signals().
extern std::atomic<bool> stop_requested;

// From now on the first Ctrl-C, SIGTERM or, not under nohup, SIGHUP sets stop_requested, and prints `note`, unless it
// is empty, on standard error. A second one ends the process at once.
void stop_at_signals(std::string note = "");

}  // namespace foe
